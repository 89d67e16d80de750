//! Resource quantities (`100m`, `1.5Gi`, `12e6`): parsing, comparing, adding and the canonical text.
//!
//! The rules are those of `k8s.io/apimachinery/pkg/api/resource.Quantity`. A quantity is kept as a whole number
//! of nanos, so every quantity up to about 10^29 is exact; larger ones are capped there. What is not here: which
//! resources exist and what they may be (that is validation, in `reeve-kinds`).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

/// One unit in nanos.
const UNIT: i128 = 1_000_000_000;
/// One thousandth in nanos.
const MILLI: i128 = 1_000_000;
/// Longest text that is looked at; Kubernetes has no limit, but no meaningful quantity is longer.
const MAX_TEXT: usize = 256;

/// The suffix family a quantity was written in; its canonical text stays in the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `n u m "" k M G T P E`
    #[default]
    DecimalSi,
    /// `Ki Mi Gi Ti Pi Ei`
    BinarySi,
    /// `12e6`
    DecimalExponent,
}

/// Why a text is no quantity. The texts are Kubernetes'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a number followed by a suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The digits cannot be read.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// No such suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// An amount of a resource. Equality and order look at the amount only, not at how it was written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// `units` whole units.
    #[must_use]
    pub fn new(units: i64, format: Format) -> Self {
        Self { nanos: i128::from(units) * UNIT, format }
    }

    /// `milli` thousandths of a unit, written in the decimal family.
    #[must_use]
    pub fn from_milli(milli: i64) -> Self {
        Self { nanos: i128::from(milli) * MILLI, format: Format::DecimalSi }
    }

    /// Reads a quantity from a JSON value: a text or a number; null is zero.
    ///
    /// # Errors
    /// When the text is no quantity, or the value neither text nor number.
    pub fn from_value(value: &Value) -> Result<Self, QuantityError> {
        match value {
            Value::Null => Ok(Self::ZERO),
            Value::String(text) => text.trim().parse(),
            Value::Number(number) => number.to_string().parse(),
            _ => Err(QuantityError::Format),
        }
    }

    /// The text that Kubernetes sends back for `text`: canonical, except where it keeps what the user wrote
    /// because no digit needs to move (`1.500` stays).
    ///
    /// # Errors
    /// When the text is no quantity.
    pub fn canonical_text(text: &str) -> Result<String, QuantityError> {
        let text = text.trim();
        let quantity: Self = text.parse()?;
        if keeps_text(text) { Ok(text.to_owned()) } else { Ok(quantity.to_string()) }
    }

    /// The suffix family.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Whether the amount is below zero.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Whole units, rounded away from zero, capped to 64 bits.
    #[must_use]
    pub fn value(&self) -> i64 {
        saturate(divide_up(self.nanos, UNIT))
    }

    /// Thousandths, rounded away from zero, capped to 64 bits.
    #[must_use]
    pub fn milli_value(&self) -> i64 {
        saturate(divide_up(self.nanos, MILLI))
    }

    /// The same, rounded away from zero to whole thousandths (what the API server does with resource lists).
    #[must_use]
    pub fn round_up_to_milli(self) -> Self {
        Self { nanos: divide_up(self.nanos, MILLI).saturating_mul(MILLI), ..self }
    }

    /// The amount as a floating-point number, as near as that comes.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "near is what is asked for")]
    pub fn approximate(&self) -> f64 {
        self.nanos as f64 / UNIT as f64
    }

    /// The amount, when it is a whole number of units that fits.
    #[must_use]
    pub fn whole_units(&self) -> Option<i64> {
        i64::try_from(self.nanos / UNIT).ok().filter(|_| self.is_whole())
    }

    /// Whether the amount is a whole number of units.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.nanos % UNIT == 0
    }

    /// Whether the amount is a whole number of thousandths.
    #[must_use]
    pub fn is_whole_milli(&self) -> bool {
        self.nanos % MILLI == 0
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// Adds; the sum is written as the left side is, or as the right side where the left is zero.
impl std::ops::Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos), format }
    }
}

impl std::ops::AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// Subtracts; may go below zero.
impl std::ops::Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_sub(other.nanos), format }
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::ZERO, |sum, item| sum + item)
    }
}

/// The canonical text.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * UNIT;
        if self.format == Format::BinarySi && !small && self.is_whole() {
            return write_binary(f, self.nanos / UNIT);
        }
        write_decimal(f, self.nanos, self.format == Format::DecimalExponent)
    }
}

fn write_binary(f: &mut fmt::Formatter<'_>, mut units: i128) -> fmt::Result {
    const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let mut power = 0;
    while power + 1 < SUFFIXES.len() && units % 1024 == 0 {
        units /= 1024;
        power += 1;
    }
    write!(f, "{units}{}", SUFFIXES[power])
}

fn write_decimal(f: &mut fmt::Formatter<'_>, nanos: i128, exponent_form: bool) -> fmt::Result {
    let (mut digits, mut exponent) = (nanos, -9);
    while digits % 1000 == 0 {
        digits /= 1000;
        exponent += 3;
    }
    let suffix = match exponent {
        0 => "",
        _ if exponent_form => return write!(f, "{digits}e{exponent}"),
        -9 => "n",
        -6 => "u",
        -3 => "m",
        3 => "k",
        6 => "M",
        9 => "G",
        12 => "T",
        15 => "P",
        18 => "E",
        _ => return write!(f, "{digits}e{exponent}"),
    };
    write!(f, "{digits}{suffix}")
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let parts = Parts::split(text)?;
        let (base, exponent, format) = read_suffix(parts.suffix)?;
        let magnitude = match base {
            Base::Two => binary_nanos(&parts, exponent),
            Base::Ten => scaled(parts.whole, parts.fraction, exponent + 9),
        };
        let mut magnitude = magnitude.ok_or(QuantityError::Numeric)?;
        if format == Format::BinarySi {
            magnitude = magnitude.min(i128::from(i64::MAX) * UNIT);
        }
        // Fractions of one unit cannot be said in the binary family.
        let format =
            if format == Format::BinarySi && magnitude < UNIT && magnitude > 0 { Format::DecimalSi } else { format };
        Ok(Self { nanos: if parts.negative { -magnitude } else { magnitude }, format })
    }
}

/// A quantity's text, cut up.
struct Parts<'t> {
    negative: bool,
    whole: &'t str,
    fraction: &'t str,
    suffix: &'t str,
}

impl<'t> Parts<'t> {
    fn split(text: &'t str) -> Result<Self, QuantityError> {
        if text.is_empty() || text.len() > MAX_TEXT {
            return Err(QuantityError::Format);
        }
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let (whole, rest) = take_digits(unsigned);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(after) => take_digits(after),
            None => ("", rest),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(QuantityError::Format);
        }
        check_suffix_form(suffix)?;
        Ok(Self { negative, whole, fraction, suffix })
    }
}

fn take_digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// `[eEinumkKMGTP]*[-+]?[0-9]*`
fn check_suffix_form(suffix: &str) -> Result<(), QuantityError> {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    if rest.bytes().all(|byte| byte.is_ascii_digit()) { Ok(()) } else { Err(QuantityError::Format) }
}

#[derive(Clone, Copy)]
enum Base {
    Two,
    Ten,
}

fn read_suffix(suffix: &str) -> Result<(Base, i32, Format), QuantityError> {
    let decimal = |exponent| Ok((Base::Ten, exponent, Format::DecimalSi));
    let binary = |exponent| Ok((Base::Two, exponent, Format::BinarySi));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let digits = suffix.strip_prefix(['e', 'E']).filter(|digits| !digits.is_empty());
            let exponent = digits.and_then(|digits| digits.parse::<i32>().ok()).ok_or(QuantityError::Suffix)?;
            Ok((Base::Ten, exponent.clamp(-1000, 1000), Format::DecimalExponent))
        }
    }
}

/// `whole.fraction · 2^exponent` in nanos, rounded up.
fn binary_nanos(parts: &Parts<'_>, exponent: i32) -> Option<i128> {
    let factor = 1_i128 << u32::try_from(exponent).ok()?;
    let whole = scaled(parts.whole, "", 9)?.saturating_mul(factor);
    if parts.fraction.is_empty() {
        return Some(whole);
    }
    // 18 digits of the fraction are exact; what lies below only decides the rounding.
    let fraction = scaled("", parts.fraction, 18)?.checked_mul(factor)?;
    Some(whole.saturating_add(divide_up(fraction, UNIT)))
}

/// `whole.fraction · 10^exponent` as a whole number, rounded up, capped.
fn scaled(whole: &str, fraction: &str, exponent: i32) -> Option<i128> {
    let mut amount: i128 = 0;
    let point = i32::try_from(whole.len()).ok()?.checked_add(exponent)?;
    let mut digits_below_one = false;
    for (index, digit) in (0_i32..).zip(whole.bytes().chain(fraction.bytes())) {
        let digit = i128::from(digit.checked_sub(b'0')?);
        if index < point {
            amount = amount.saturating_mul(10).saturating_add(digit);
        } else if digit != 0 {
            digits_below_one = true;
        }
    }
    let written = i32::try_from(whole.len() + fraction.len()).ok()?;
    for _ in written..point {
        if amount == 0 {
            break;
        }
        amount = amount.saturating_mul(10);
    }
    Some(if digits_below_one { amount.saturating_add(1) } else { amount })
}

fn divide_up(amount: i128, by: i128) -> i128 {
    let rest = amount % by;
    amount / by + rest.signum()
}

fn saturate(amount: i128) -> i64 {
    i64::try_from(amount).unwrap_or(if amount < 0 { i64::MIN } else { i64::MAX })
}

/// Whether Kubernetes keeps the text as it was written: no digit would move, by its quick test.
fn keeps_text(text: &str) -> bool {
    let Ok(parts) = Parts::split(text) else { return false };
    let Ok((base, exponent, _)) = read_suffix(parts.suffix) else { return false };
    let whole = parts.whole.trim_start_matches('0');
    let whole_digits = if whole.is_empty() { 1 } else { whole.len() };
    let digits = format!("{}{}", if whole.is_empty() { "0" } else { whole }, parts.fraction);
    match base {
        Base::Two => {
            let Ok(power) = usize::try_from(exponent) else { return false };
            let odd = digits.parse::<i64>().is_ok_and(|value| value & 7 != 0);
            parts.fraction.is_empty() && whole_digits + power * 3 / 10 < 15 && odd
        }
        Base::Ten => {
            let Ok(places) = i32::try_from(parts.fraction.len()) else { return false };
            let scale = exponent - places;
            let fits = digits.len() < 18 && scale >= -9;
            fits && scale % 3 == 0 && !digits.ends_with("000") && !digits.starts_with('0')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, canonical: &str) {
        assert_eq!(text.parse::<Quantity>().expect(text).to_string(), canonical, "{text}");
    }

    #[test]
    fn quantities_are_written_canonically_in_their_family() {
        for (text, canonical) in [
            ("0", "0"),
            ("0.0Gi", "0"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("1500", "1500"),
            ("1000", "1k"),
            ("+12", "12"),
            ("-12", "-12"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("1023", "1023"),
            ("512Ki", "512Ki"),
            ("1Ki", "1Ki"),
            ("0.5Ki", "512"),
            ("12e6", "12e6"),
            ("12E3", "12e3"),
            ("1e-3", "1e-3"),
            ("0.1n", "1n"),
            ("1.1n", "2n"),
            ("100000000000000000000", "100E"),
            ("1000E", "1e21"),
            ("9Ei", "9223372036854775807"),
            ("0.0000000001Gi", "107374183n"),
        ] {
            check(text, canonical);
        }
    }

    #[test]
    fn the_server_keeps_a_text_whose_digits_need_not_move() {
        for (text, kept) in
            [("1.500", "1.500"), ("1.5", "1500m"), ("1000m", "1"), ("250m", "250m"), ("8Mi", "8Mi"), ("2048Ki", "2Mi")]
        {
            assert_eq!(Quantity::canonical_text(text).unwrap(), kept, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused_with_the_reason() {
        for (text, error) in [
            ("", QuantityError::Format),
            ("abc", QuantityError::Format),
            ("1 Gi", QuantityError::Format),
            ("1.2.3", QuantityError::Format),
            ("-", QuantityError::Format),
            ("1KiB", QuantityError::Format),
            ("1K", QuantityError::Suffix),
            ("1mm", QuantityError::Suffix),
            ("1e", QuantityError::Suffix),
            ("1i", QuantityError::Suffix),
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn values_round_away_from_zero() {
        let quantity: Quantity = "1100u".parse().unwrap();
        assert_eq!((quantity.milli_value(), quantity.value()), (2, 1));
        let negative: Quantity = "-1500m".parse().unwrap();
        assert_eq!(negative.value(), -2);
        assert_eq!(quantity.round_up_to_milli().to_string(), "2m");
    }

    #[test]
    fn sums_take_the_family_of_the_first_amount() {
        let sum: Quantity = ["0", "1Gi", "512Mi"].iter().map(|text| text.parse::<Quantity>().unwrap()).sum();
        assert_eq!(sum.to_string(), "1536Mi");
        assert!("1".parse::<Quantity>().unwrap() == "1000m".parse::<Quantity>().unwrap());
        assert!("1M".parse::<Quantity>().unwrap() < "1Mi".parse::<Quantity>().unwrap());
    }
}
