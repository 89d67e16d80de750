//! The cost of a call: by its form, its name, and the sizes of its arguments.

use super::{CostEstimate, Entries, Estimator, Path, SizeEstimate, UNKNOWN};
use crate::ast::{ACCUMULATOR, Call, Expr, Kind};
use crate::price::{CHECK, MAKE_LIST, MAKE_STRUCT, PATTERN, TRAVERSAL};
use crate::types::Type;
use crate::value::Value;

/// A cost, and the size of the result when it is known.
type Estimated = (CostEstimate, Option<SizeEstimate>);

/// Longest name of a format, and longest pattern of one.
const FORMAT_NAME: u64 = 64;
const FORMAT_PATTERN: f64 = 128.0;
/// An address has 4 or 16 bytes.
const ADDRESS: SizeEstimate = SizeEstimate { min: 4, max: 16 };

fn only(cost: CostEstimate) -> Option<Estimated> {
    Some((cost, None))
}

fn one() -> CostEstimate {
    CostEstimate::fixed(1)
}

impl Estimator<'_> {
    /// The cost of the form `overload` of a call whose arguments cost `costs`.
    pub(super) fn overload(&mut self, expr: &Expr, call: &Call, overload: &str, costs: &[CostEstimate]) -> Estimated {
        let of_args = costs.iter().copied().fold(CostEstimate::default(), CostEstimate::plus);
        let own = self.extension(call, overload).or_else(|| self.kubernetes(call, overload));
        if let Some((cost, size)) = own {
            return (cost.plus(of_args), size);
        }
        match (overload, costs) {
            // The right side may not be needed.
            ("logical_or" | "logical_and", [left, right]) => {
                (CostEstimate { min: left.min, max: left.plus(*right).max }, None)
            }
            ("conditional", [condition, yes, no]) => {
                let [_, then, otherwise] = call.args.as_slice() else { return (of_args, None) };
                let size = self.size_or_unknown(then).union(self.size_or_unknown(otherwise));
                let entries = union(self.entries_of(then), self.entries_of(otherwise));
                self.set_entries(expr, entries);
                (condition.plus(yes.union(*no)), Some(size))
            }
            _ => {
                let (cost, size) = self.standard(expr, call, overload).unwrap_or((one(), None));
                (cost.plus(of_args), size)
            }
        }
    }

    fn set_entries(&mut self, expr: &Expr, entries: Option<Entries>) {
        if let Some(entries) = entries {
            self.entries.insert(expr.id, entries);
        }
    }

    /// The size of an argument as Kubernetes' rules see it: accumulators lead nowhere.
    fn node_size(&mut self, expr: &Expr) -> SizeEstimate {
        if let Some(size) = self.size(expr) {
            return size;
        }
        UNKNOWN
    }

    /// The path to the elements of a list, when the list is in an object.
    fn items_path(&self, list: &Expr) -> Option<Path> {
        let path = self.path(list);
        let leads = path.first().is_some_and(|first| first != ACCUMULATOR);
        leads.then(|| self.longer(list, "@items"))
    }

    /// The size of the elements of a list, where that is known.
    fn items_size(&self, list: &Expr) -> SizeEstimate {
        self.items_path(list).and_then(|path| self.at(&path)).unwrap_or(UNKNOWN)
    }

    fn element_type(&self, list: &Expr) -> Option<Type> {
        match self.checked.type_of(list) {
            Type::List(element) => Some((**element).clone()),
            Type::Map(key, _) => Some((**key).clone()),
            Type::Opaque(_, params) => params.first().cloned(),
            _ => None,
        }
    }

    /// What the extension libraries say of their forms.
    fn extension(&mut self, call: &Call, overload: &str) -> Option<Estimated> {
        let making = |factor: f64, size: SizeEstimate| {
            let cost = size.scaled(factor).plus(one()).plus(CostEstimate::fixed(MAKE_LIST));
            Some((cost, Some(size)))
        };
        let target = call.target.as_deref();
        let number = |index: usize, otherwise: u64| match call.args.get(index).map(|arg| &arg.kind) {
            Some(Kind::Literal(Value::Int(number))) => u64::try_from(*number).unwrap_or_default(),
            _ => otherwise,
        };
        match overload {
            "list_slice" => {
                let size = self.node_size(target?);
                making(1.0, SizeEstimate::fixed(number(1, size.max).wrapping_sub(number(0, 0))))
            }
            "lists_range" => making(1.0, SizeEstimate::fixed(number(0, u64::MAX))),
            "list_reverse" => making(1.0, self.node_size(target?)),
            "list_flatten" | "list_flatten_int" => {
                let depth = if call.args.is_empty() { 1 } else { number(0, u64::MAX) };
                #[expect(clippy::cast_precision_loss, reason = "costs are what they are in floating point")]
                making(depth as f64, self.node_size(target?))
            }
            "list_distinct" => {
                let size = self.node_size(target?);
                making(2.0, size.times(size))
            }
            "list_sets_contains_list" | "list_sets_intersects_list" | "list_sets_equivalent_list" => {
                let [one_list, other] = call.args.as_slice() else { return None };
                let factor = if overload == "list_sets_equivalent_list" { 2.0 } else { 1.0 };
                let pairs = self.node_size(one_list).times(self.node_size(other));
                only(pairs.scaled(factor).plus(one()))
            }
            _ => {
                let keys = match overload.strip_prefix("list_")?.rsplit_once('_')? {
                    (kind, "sort") => (kind, target?),
                    (kind, "sortByAssociatedKeys") => (kind, call.args.first()?),
                    _ => return None,
                };
                let factor = if matches!(keys.0, "string" | "bytes") { 2.0 + TRAVERSAL } else { 2.0 };
                let size = self.node_size(keys.1);
                making(factor, size.times(size))
            }
        }
    }

    /// What Kubernetes says of functions, by name.
    fn kubernetes(&mut self, call: &Call, overload: &str) -> Option<Estimated> {
        let target = call.target.as_deref();
        let first = call.args.first();
        match call.function.as_str() {
            "check" => only(CostEstimate::fixed(CHECK)),
            "serviceAccount" | "path" | "group" | "resource" | "subresource" | "namespace" | "name" | "allowed"
            | "reason" | "error" | "errored" => only(one()),
            "fieldSelector" | "labelSelector" => {
                let length = self.node_size(first?);
                #[expect(clippy::cast_precision_loss, reason = "a small number")]
                let requirement = (MAKE_LIST + MAKE_STRUCT) as f64;
                let requirements = length.scaled(0.5).scaled(requirement);
                only(CostEstimate::fixed(MAKE_LIST).plus(length.scaled(TRAVERSAL)).plus(requirements))
            }
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => self.each_element(target?),
            "url" | "jsonpatch.escapeKey" => {
                let size = self.node_size(first?);
                Some((size.scaled(TRAVERSAL), Some(size)))
            }
            "lowerAscii" | "upperAscii" | "substring" | "trim" => {
                let size = self.node_size(target?);
                Some((size.scaled(TRAVERSAL), Some(size)))
            }
            "replace" => self.replace(target?, &call.args),
            "split" => self.split(target?, &call.args),
            "join" => self.join(target?, first),
            "find" | "findAll" => {
                let size = self.node_size(target?);
                let cost = self.pattern(target?, first?);
                Some((cost, Some(SizeEstimate { min: 0, max: size.max })))
            }
            "validate" => {
                let size = self.node_size(first?);
                only(size.scaled(TRAVERSAL).scaled(FORMAT_PATTERN * PATTERN))
            }
            "_==_" => self.equality(call),
            _ => self.addresses(call, overload).or_else(|| accessor(&call.function)),
        }
    }

    fn each_element(&mut self, target: &Expr) -> Option<Estimated> {
        let size = self.node_size(target);
        let Some(element) = self.element_type(target) else {
            // A text: `indexOf` and `lastIndexOf`.
            return only(size.scaled(TRAVERSAL));
        };
        let mut each = one();
        if matches!(element, Type::String | Type::Bytes) {
            each = each.plus(self.items_size(target).scaled(TRAVERSAL));
        }
        only(size.times(each))
    }

    fn pattern(&mut self, text: &Expr, pattern: &Expr) -> CostEstimate {
        let letters = self.node_size(text).plus(SizeEstimate::fixed(1)).scaled(TRAVERSAL);
        letters.times(self.node_size(pattern).scaled(PATTERN))
    }

    fn replace(&mut self, target: &Expr, args: &[Expr]) -> Option<Estimated> {
        let [old, new, ..] = args else { return None };
        let (size, old, new) = (self.node_size(target), self.node_size(old), self.node_size(new));
        let (mut count, mut kept) = (SizeEstimate::default(), SizeEstimate::default());
        if old.min == 0 {
            // Nothing is between any two letters, and before and after them.
            count.max = size.max.saturating_add(1);
            kept.max = size.max;
        } else if new.max <= old.min {
            kept.max = size.max;
        } else {
            count.max = divided(size.max, old.min);
        }
        if old.max == 0 {
            count.min = size.min.saturating_add(1);
            kept.min = size.min;
        } else if old.max <= new.min {
            kept.min = size.min;
        } else {
            count.min = divided(size.min, old.max);
        }
        Some((size.scaled(2.0 * TRAVERSAL), Some(count.times(new).plus(kept))))
    }

    fn split(&mut self, target: &Expr, args: &[Expr]) -> Option<Estimated> {
        let size = self.node_size(target);
        let max = match args.get(1).map(|arg| &arg.kind) {
            Some(Kind::Literal(Value::Int(limit))) => limit.cast_unsigned(),
            _ => size.max,
        };
        Some((size.scaled(2.0 * TRAVERSAL), Some(SizeEstimate { min: 0, max })))
    }

    fn join(&mut self, target: &Expr, separator: Option<&Expr>) -> Option<Estimated> {
        let list = self.node_size(target);
        let mut size = SizeEstimate::default();
        if self.element_type(target).is_some() {
            size = list.times(self.items_size(target));
        }
        if let Some(separator) = separator {
            let between = SizeEstimate { min: list.min.saturating_sub(1), max: list.max.saturating_sub(1) };
            size = size.plus(self.node_size(separator).times(between));
        }
        Some((size.scaled(TRAVERSAL), Some(size)))
    }

    fn addresses(&mut self, call: &Call, overload: &str) -> Option<Estimated> {
        let first = call.args.first();
        let both = ADDRESS.plus(ADDRESS).scaled(TRAVERSAL);
        match call.function.as_str() {
            "ip" if overload == "cidr_ip" => only(one()),
            "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver" => {
                only(self.node_size(first?).scaled(TRAVERSAL))
            }
            "ip.isCanonical" => only(self.node_size(first?).scaled(2.0 * TRAVERSAL)),
            "containsIP" => {
                let text = overload == "cidr_contains_ip_string";
                let parsed = if text { self.node_size(first?).scaled(TRAVERSAL) } else { CostEstimate::default() };
                only(both.plus(parsed))
            }
            "containsCIDR" => {
                let text = overload == "cidr_contains_cidr_string";
                let parsed = if text { self.node_size(first?).scaled(TRAVERSAL) } else { CostEstimate::default() };
                only(both.plus(ADDRESS.scaled(TRAVERSAL)).plus(one()).plus(parsed))
            }
            _ => None,
        }
    }

    /// Equality of the libraries' own types.
    fn equality(&mut self, call: &Call) -> Option<Estimated> {
        let [left, right] = call.args.as_slice() else { return None };
        let of = self.checked.type_of(left);
        if of != self.checked.type_of(right) {
            return None;
        }
        let name = match of {
            Type::Opaque(name, _) if matches!(&**name, "net.IP" | "net.CIDR") => return only(one()),
            Type::Object(name) => name,
            _ => return None,
        };
        match &**name {
            "kubernetes.Quantity" | "kubernetes.Semver" => only(one()),
            name if name.starts_with("kubernetes.authorization.") => only(one()),
            "kubernetes.NamedFormat" => only(CostEstimate { min: 1, max: FORMAT_NAME }.scaled(TRAVERSAL)),
            "kubernetes.URL" => {
                let max = self.size(right).map_or(1, |size| size.max);
                only(CostEstimate { min: 1, max }.scaled(TRAVERSAL))
            }
            _ => None,
        }
    }

    /// What cel-go says of the standard forms.
    fn standard(&mut self, expr: &Expr, call: &Call, overload: &str) -> Option<Estimated> {
        let args = call.args.as_slice();
        match (overload, call.target.as_deref(), args) {
            ("string_format", Some(target), _) => only(self.size_or_unknown(target).scaled(TRAVERSAL)),
            ("string_to_bytes", _, [arg]) => {
                let size = self.size_or_unknown(arg);
                let result = SizeEstimate { min: size.min, max: size.max.wrapping_mul(4) };
                Some((size.scaled(TRAVERSAL), Some(result)))
            }
            ("bytes_to_string", _, [arg]) => {
                let size = self.size_or_unknown(arg);
                Some((size.scaled(TRAVERSAL), Some(SizeEstimate { min: size.min / 4, max: size.max })))
            }
            ("strings_quote", _, [arg]) => {
                let size = self.size_or_unknown(arg);
                let max = size.max.wrapping_mul(2).wrapping_add(2);
                Some((size.scaled(TRAVERSAL), Some(SizeEstimate { min: size.min.wrapping_add(2), max })))
            }
            ("starts_with_string" | "ends_with_string", _, [arg]) => only(self.size_or_unknown(arg).scaled(TRAVERSAL)),
            ("in_list", _, [_, list]) => only(self.size_or_unknown(list).scaled(1.0)),
            ("matches_string", Some(target), [pattern]) => {
                let letters = self.size_or_unknown(target).plus(SizeEstimate::fixed(1)).scaled(TRAVERSAL);
                only(letters.times(self.size_or_unknown(pattern).scaled(PATTERN)))
            }
            ("contains_string", Some(target), [part]) => {
                let letters = self.size_or_unknown(target).scaled(TRAVERSAL);
                only(letters.times(self.size_or_unknown(part).scaled(TRAVERSAL)))
            }
            ("add_string" | "add_bytes" | "add_list", _, [left, right]) => {
                let size = self.size_or_unknown(left).plus(self.size_or_unknown(right));
                let entries = union(self.entries_of(left), self.entries_of(right));
                self.set_entries(expr, entries);
                let cost = if overload == "add_list" { one() } else { size.scaled(TRAVERSAL) };
                Some((cost, Some(size)))
            }
            (id, _, [left, right]) if compares(id) => {
                let max = self.size_or_unknown(left).max.min(self.size_or_unknown(right).max);
                only(CostEstimate { min: u64::from(max > 0), max }.scaled(TRAVERSAL))
            }
            _ => None,
        }
    }
}

/// Functions that only read something.
fn accessor(function: &str) -> Option<Estimated> {
    const ONE: [&str; 28] = [
        "masked",
        "prefixLength",
        "family",
        "isUnspecified",
        "isLoopback",
        "isLinkLocalMulticast",
        "isLinkLocalUnicast",
        "isGlobalUnicast",
        "format.named",
        "sign",
        "asInteger",
        "isInteger",
        "asApproximateFloat",
        "isGreaterThan",
        "isLessThan",
        "compareTo",
        "add",
        "sub",
        "major",
        "minor",
        "patch",
        "getScheme",
        "getHostname",
        "getHost",
        "getPort",
        "getEscapedPath",
        "getQuery",
        "isURL",
    ];
    // What only reads costs one, and so does `isURL`, of which nothing is said.
    if ONE.contains(&function) { only(one()) } else { None }
}

/// Equality, and the order of texts and bytes.
fn compares(overload: &str) -> bool {
    let ordered = overload.strip_suffix("_string").or_else(|| overload.strip_suffix("_bytes"));
    matches!(overload, "equals" | "not_equals")
        || ordered.is_some_and(|order| matches!(order, "less" | "less_equals" | "greater" | "greater_equals"))
}

fn union(one: Option<Entries>, other: Option<Entries>) -> Option<Entries> {
    let (one, other) = (one?, other?);
    let (key, value) = (one.key.union(other.key), one.value.union(other.value));
    Some(Entries { is_list: one.is_list, key, value })
}

/// `ceil(size / by)` in floating point.
fn divided(size: u64, by: u64) -> u64 {
    #[expect(clippy::cast_precision_loss, reason = "costs are what they are in floating point")]
    let quotient = (size as f64 / by as f64).ceil();
    crate::price::to_cost(quotient)
}
