//! From text to syntax tree: a recursive descent over CEL's grammar that writes macros out as it goes.
//!
//! What is here and not in the grammar: limits (size of the text, depth, number of nodes after macros), and the
//! wording of syntax errors, which is that of cel-go for the errors people make. After the first error that cannot
//! be skipped the rest of the text is not looked at.

use crate::ast::{Call, Entry, Expr, Field, Fold, Kind, Presence, UNUSED};
use crate::escape::RESERVED;
use crate::issue::Issues;
use crate::lexer::{Token, TokenKind, tokens};
use crate::macros;
use crate::unescape;
use crate::value::Value;

/// Longest expression, in code points (cel-go's limit).
const TEXT_MAX: usize = 100_000;
/// Deepest nesting (cel-go's limit).
const DEPTH_MAX: usize = 250;
/// Most nodes after macros are written out. A macro that copies its target can double them, so this needs a limit
/// that cel-go does not have; the longest text without macros stays below it.
const NODES_MAX: u32 = 300_000;

const OPERAND: &str =
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
const OPERAND_OR_PAREN: &str = "{'[', '{', '(', ')', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
const OPERAND_OR_BRACKET: &str = "{'[', ']', '{', '(', '.', ',', '-', '!', '?', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
const OPERAND_OR_BRACE: &str = "{'[', '{', '}', '(', '.', ',', '-', '!', '?', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
const FIELD_OR_BRACE: &str = "{'}', ',', '?', IDENTIFIER, ESC_IDENTIFIER}";
/// Operators between two operands: strength, text, function.
const OPERATORS: [(usize, &str, &str); 12] = [
    (0, "<", "_<_"),
    (0, "<=", "_<=_"),
    (0, ">=", "_>=_"),
    (0, ">", "_>_"),
    (0, "==", "_==_"),
    (0, "!=", "_!=_"),
    (0, "in", "@in"),
    (1, "+", "_+_"),
    (1, "-", "_-_"),
    (2, "*", "_*_"),
    (2, "/", "_/_"),
    (2, "%", "_%_"),
];

/// Parsing cannot go on; the reason has been reported.
#[derive(Debug)]
pub(crate) struct Stop;
/// What is parsed is boxed: that keeps the frames small, of which the deepest expression makes many.
type Parsed<T = Box<Expr>> = Result<T, Stop>;

/// Parses `text`; none when something was reported.
pub(crate) fn parse(text: &str, issues: &mut Issues) -> Option<(Expr, u32)> {
    let length = text.chars().count();
    if length > TEXT_MAX {
        let limit = format!("size: {length}, limit {TEXT_MAX}");
        issues.report(None, format!("expression code point size exceeds limit: {limit}"));
        return None;
    }
    let tokens = tokens(text, issues);
    let mut parser = Parser { tokens, at: 0, depth: 0, nodes: Nodes { next: 0 }, issues };
    let root = parser.start();
    let nodes = parser.nodes.next;
    root.ok().filter(|_| issues.is_empty()).map(|root| (*root, nodes))
}

/// Hands out the numbers of nodes.
pub(crate) struct Nodes {
    next: u32,
}

impl Nodes {
    pub(crate) fn make(&mut self, offset: u32, kind: Kind) -> Expr {
        let id = self.next;
        self.next = self.next.saturating_add(1);
        Expr { id, offset, kind }
    }

    pub(crate) fn are_too_many(&self) -> bool {
        self.next > NODES_MAX
    }
}

struct Parser<'s, 'i> {
    tokens: Vec<Token<'s>>,
    at: usize,
    depth: usize,
    nodes: Nodes,
    issues: &'i mut Issues,
}

impl<'s> Parser<'s, '_> {
    fn start(&mut self) -> Parsed {
        let root = self.expr()?;
        self.expect_end()?;
        Ok(root)
    }

    // ## Tokens

    fn token(&self, ahead: usize) -> Token<'s> {
        let last = self.tokens.len().saturating_sub(1);
        let index = (self.at + ahead).min(last);
        self.tokens.get(index).cloned().unwrap_or(Token { kind: TokenKind::End, text: "", offset: 0 })
    }

    fn take(&mut self) -> Token<'s> {
        let token = self.token(0);
        self.at += 1;
        token
    }

    fn take_if(&mut self, symbol: &str) -> Option<Token<'s>> {
        self.token(0).is(symbol).then(|| self.take())
    }

    fn syntax(&mut self, offset: u32, message: &str) {
        self.issues.report(Some(offset), format!("Syntax error: {message}"));
    }

    /// Takes `symbol`, skipping one token too many; `expected` is how the message names what may be here.
    fn expect(&mut self, symbol: &str, expected: &str) -> Parsed<Token<'s>> {
        if let Some(token) = self.take_if(symbol) {
            return Ok(token);
        }
        let token = self.token(0);
        let shown = token.shown();
        if token.kind != TokenKind::End && self.token(1).is(symbol) {
            self.syntax(token.offset, &format!("extraneous input '{shown}' expecting {expected}"));
            self.at += 1;
            return Ok(self.take());
        }
        let at_end = token.kind == TokenKind::End && matches!(symbol, ")" | "]" | "}") && self.depth <= 2;
        let message = match at_end {
            true => format!("missing '{symbol}' at '{shown}'"),
            false => format!("mismatched input '{shown}' expecting {expected}"),
        };
        self.syntax(token.offset, &message);
        Err(Stop)
    }

    fn expect_end(&mut self) -> Parsed<()> {
        let token = self.token(0);
        if token.kind == TokenKind::End {
            return Ok(());
        }
        let kind = if self.token(1).kind == TokenKind::End { "extraneous" } else { "mismatched" };
        self.syntax(token.offset, &format!("{kind} input '{}' expecting <EOF>", token.shown()));
        Err(Stop)
    }

    // ## Nodes

    fn make(&mut self, offset: u32, kind: Kind) -> Parsed {
        if self.nodes.are_too_many() {
            self.issues.report(None, "expression is too large once its macros are expanded");
            return Err(Stop);
        }
        Ok(Box::new(self.nodes.make(offset, kind)))
    }

    fn broken(&mut self, offset: u32, message: &str) -> Parsed {
        self.issues.report(Some(offset), message);
        self.make(offset, Kind::Broken)
    }

    fn too_deep(&mut self) -> Parsed<()> {
        self.issues.report(None, format!("expression recursion limit exceeded: {DEPTH_MAX}"));
        Err(Stop)
    }

    /// A call, written out when it is a macro's.
    fn call(&mut self, offset: u32, function: &str, target: Option<Box<Expr>>, args: Vec<Expr>) -> Parsed {
        let call = Call { function: function.to_owned(), target, args };
        match macros::expand(call, offset, &mut self.nodes) {
            Ok(kind) => self.make(offset, kind),
            Err(macros::Refused { offset, message }) => self.broken(offset, &message),
        }
    }

    // ## Grammar

    // One level of nesting goes through `expr`, `or`, `operators`, `unary`, `member`, `primary`: few functions, so
    // that the deepest expression fits the stack of a thread.

    fn expr(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            self.too_deep()?;
        }
        let condition = self.or()?;
        let whole = match self.take_if("?") {
            None => condition,
            Some(question) => {
                let yes = self.or()?;
                self.expect(":", "':'")?;
                let no = self.expr()?;
                self.call(question.offset, "_?_:_", None, vec![*condition, *yes, *no])?
            }
        };
        self.depth -= 1;
        Ok(whole)
    }

    /// Chains of `||` and within them of `&&`, as balanced trees: so they are not deep however long they are.
    fn or(&mut self) -> Parsed {
        let (mut ors, mut or_offsets) = (Vec::new(), Vec::new());
        loop {
            let (mut ands, mut and_offsets) = (Vec::new(), Vec::new());
            loop {
                ands.push(Some(self.operators()?));
                match self.take_if("&&") {
                    Some(token) => and_offsets.push(token.offset),
                    None => break,
                }
            }
            ors.push(Some(self.balanced("_&&_", &mut ands, &and_offsets, 0)?));
            match self.take_if("||") {
                Some(token) => or_offsets.push(token.offset),
                None => return self.balanced("_||_", &mut ors, &or_offsets, 0),
            }
        }
    }

    /// The tree over `terms`, where `offsets[i]` is the operator between terms `i` and `i + 1`.
    fn balanced(&mut self, function: &str, terms: &mut [Option<Box<Expr>>], offsets: &[u32], low: usize) -> Parsed {
        if let [term] = terms {
            return match term.take() {
                Some(term) => Ok(term),
                None => Err(Stop),
            };
        }
        let middle = (low + low + offsets.len()) / 2 - low;
        let (left, right) = terms.split_at_mut(middle + 1);
        let left = self.balanced(function, left, offsets.get(..middle).unwrap_or_default(), low)?;
        let right_offsets = offsets.get(middle + 1..).unwrap_or_default();
        let right = self.balanced(function, right, right_offsets, low + middle + 1)?;
        let offset = offsets.get(middle).copied().unwrap_or_default();
        self.call(offset, function, None, vec![*left, *right])
    }

    /// Relations, sums and products, by their strength and from the left.
    fn operators(&mut self) -> Parsed {
        let mut operands = vec![self.unary()?];
        let mut pending: Vec<(usize, &str, u32)> = Vec::new();
        let mut chain = 0;
        while let Some((strength, function)) = strength_of(&self.token(0)) {
            let token = self.take();
            chain += 1;
            if self.depth + chain > DEPTH_MAX {
                self.too_deep()?;
            }
            while pending.last().is_some_and(|(before, ..)| *before >= strength) {
                self.reduce(&mut operands, &mut pending)?;
            }
            pending.push((strength, function, token.offset));
            operands.push(self.unary()?);
        }
        while !pending.is_empty() {
            self.reduce(&mut operands, &mut pending)?;
        }
        operands.pop().ok_or(Stop)
    }

    /// Makes one of the last two operands and the last operator.
    #[allow(clippy::vec_box, reason = "expressions are boxed wherever they come from and go to")]
    fn reduce(&mut self, operands: &mut Vec<Box<Expr>>, pending: &mut Vec<(usize, &str, u32)>) -> Parsed<()> {
        let (Some(right), Some(left), Some((_, function, offset))) = (operands.pop(), operands.pop(), pending.pop())
        else {
            return Err(Stop);
        };
        let made = self.call(offset, function, None, vec![*left, *right])?;
        operands.push(made);
        Ok(())
    }

    fn unary(&mut self) -> Parsed {
        for (symbol, function) in [("!", "!_"), ("-", "-_")] {
            let first = self.token(0);
            if !first.is(symbol) || (symbol == "-" && self.is_negative_number()) {
                continue;
            }
            let mut count = 0;
            while self.token(0).is(symbol) {
                self.at += 1;
                count += 1;
            }
            let operand = self.member()?;
            return if count % 2 == 0 { Ok(operand) } else { self.call(first.offset, function, None, vec![*operand]) };
        }
        self.member()
    }

    fn is_negative_number(&self) -> bool {
        self.token(0).is("-") && matches!(self.token(1).kind, TokenKind::Int | TokenKind::Float)
    }

    fn member(&mut self) -> Parsed {
        let mut operand = self.primary()?;
        let mut chain = 0;
        loop {
            let token = self.token(0);
            if !token.is(".") && !token.is("[") {
                return Ok(operand);
            }
            self.at += 1;
            chain += 1;
            if self.depth + chain > DEPTH_MAX {
                self.too_deep()?;
            }
            operand = match token.is(".") {
                true => self.selection(operand, token.offset)?,
                false => {
                    let optional = self.take_if("?").is_some();
                    let index = self.expr()?;
                    self.expect("]", "']'")?;
                    let function = if optional { "_[?_]" } else { "_[_]" };
                    self.call(token.offset, function, None, vec![*operand, *index])?
                }
            };
        }
    }

    /// What follows a dot: a field, an optional field, or a call.
    fn selection(&mut self, operand: Box<Expr>, dot: u32) -> Parsed {
        let optional = self.take_if("?").is_some();
        let name = self.token(0);
        match name.kind {
            TokenKind::Ident => {}
            TokenKind::EscapedIdent => {
                self.at += 1;
                return self.broken(name.offset, "unsupported syntax: '`'");
            }
            _ => {
                let word = matches!(name.kind, TokenKind::Symbol("true" | "false" | "null"));
                let shown = if name.kind == TokenKind::End { String::new() } else { name.shown() };
                let message = match word {
                    true => format!("mismatched input '{shown}' expecting IDENTIFIER"),
                    false => format!("no viable alternative at input '.{shown}'"),
                };
                self.syntax(name.offset, &message);
                return Err(Stop);
            }
        }
        self.at += 1;
        if optional {
            let field = self.make(name.offset, Kind::Literal(Value::text(name.text)))?;
            return self.call(dot, "_?._", None, vec![*operand, *field]);
        }
        match self.take_if("(") {
            Some(open) => {
                let args = self.args()?;
                self.call(open.offset, name.text, Some(operand), args)
            }
            None => self.make(dot, Kind::Select(operand, name.text.to_owned(), Presence::Read)),
        }
    }

    /// What is between the parentheses of a call, and the closing one.
    fn args(&mut self) -> Parsed<Vec<Expr>> {
        let mut args = Vec::new();
        if self.take_if(")").is_some() {
            return Ok(args);
        }
        self.operand_here(OPERAND_OR_PAREN, ")")?;
        loop {
            args.push(*self.expr()?);
            if self.take_if(",").is_none() {
                break;
            }
        }
        self.expect(")", "')'")?;
        Ok(args)
    }

    /// Reports what cannot start an operand, and skips it when that helps.
    fn operand_here(&mut self, expected: &str, close: &str) -> Parsed<()> {
        let starts = |token: &Token<'_>| match token.kind {
            TokenKind::End | TokenKind::EscapedIdent => false,
            TokenKind::Symbol(symbol) => {
                matches!(symbol, "[" | "{" | "(" | "." | "-" | "!" | "true" | "false" | "null")
                    || (symbol == "?" && close != ")" && !close.is_empty())
            }
            _ => true,
        };
        let token = self.token(0);
        if starts(&token) {
            return Ok(());
        }
        let shown = token.shown();
        if token.kind != TokenKind::End && starts(&self.token(1)) {
            self.syntax(token.offset, &format!("extraneous input '{shown}' expecting {expected}"));
            self.at += 1;
            return Ok(());
        }
        self.syntax(token.offset, &format!("mismatched input '{shown}' expecting {expected}"));
        let next = self.token(1);
        if token.kind != TokenKind::End && next.kind == TokenKind::End {
            self.syntax(next.offset, &format!("mismatched input '<EOF>' expecting {OPERAND}"));
        }
        Err(Stop)
    }

    fn primary(&mut self) -> Parsed {
        self.operand_here(OPERAND, "")?;
        let token = self.token(0);
        match token.kind {
            TokenKind::Symbol("(") => {
                self.at += 1;
                let inner = self.expr()?;
                self.expect(")", "')'")?;
                Ok(inner)
            }
            TokenKind::Symbol("[") => self.list(),
            TokenKind::Symbol("{") => self.map(),
            TokenKind::Symbol(".") => {
                self.at += 1;
                match self.token(0).kind {
                    TokenKind::Ident => self.name(true, token.offset),
                    _ => {
                        let bad = self.token(0);
                        let shown = if bad.kind == TokenKind::End { String::new() } else { bad.shown() };
                        self.syntax(bad.offset, &format!("no viable alternative at input '.{shown}'"));
                        Err(Stop)
                    }
                }
            }
            TokenKind::Symbol("-" | "!") if !self.is_negative_number() => {
                self.syntax(token.offset, &format!("extraneous input '{}' expecting {OPERAND}", token.shown()));
                Err(Stop)
            }
            TokenKind::Ident => self.name(false, token.offset),
            _ => self.literal(),
        }
    }

    /// A variable, a call, or a message (`a.b.C{…}`).
    fn name(&mut self, leading_dot: bool, start: u32) -> Parsed {
        if let Some(message) = self.message(leading_dot)? {
            return Ok(message);
        }
        let token = self.take();
        if RESERVED.contains(&token.text) {
            return self.broken(start, &format!("reserved identifier: {}", token.text));
        }
        let name = format!("{}{}", if leading_dot { "." } else { "" }, token.text);
        match self.take_if("(") {
            Some(open) => {
                let args = self.args()?;
                self.call(open.offset, &name, None, args)
            }
            None => self.make(token.offset, Kind::Ident(name)),
        }
    }

    /// `Name.Of.Type{field: value}`, when that is what is here.
    fn message(&mut self, leading_dot: bool) -> Parsed<Option<Box<Expr>>> {
        let mut ahead = 1;
        while self.token(ahead).is(".") && self.token(ahead + 1).kind == TokenKind::Ident {
            ahead += 2;
        }
        if !self.token(ahead).is("{") {
            return Ok(None);
        }
        let parts: Vec<&str> = (0..ahead).step_by(2).map(|index| self.token(index).text).collect();
        let name = format!("{}{}", if leading_dot { "." } else { "" }, parts.join("."));
        self.at += ahead;
        let open = self.take();
        let fields = self.fields()?;
        self.make(open.offset, Kind::Struct(name, fields)).map(Some)
    }

    fn fields(&mut self) -> Parsed<Vec<Field>> {
        let mut fields = Vec::new();
        loop {
            if self.take_if("}").is_some() || (fields.is_empty() && self.comma_before("}")) {
                return Ok(fields);
            }
            let optional = self.take_if("?").is_some();
            let token = self.token(0);
            match token.kind {
                TokenKind::Ident | TokenKind::Symbol("in") => {}
                TokenKind::EscapedIdent => {
                    self.broken(token.offset, "unsupported syntax: '`'")?;
                }
                _ => {
                    let expected = if optional { "{IDENTIFIER, ESC_IDENTIFIER}" } else { FIELD_OR_BRACE };
                    self.syntax(token.offset, &format!("mismatched input '{}' expecting {expected}", token.shown()));
                    return Err(Stop);
                }
            }
            self.at += 1;
            let colon = self.expect(":", "':'")?;
            let value = self.expr()?;
            fields.push(Field { offset: colon.offset, name: token.text.to_owned(), value: *value, optional });
            if self.take_if(",").is_none() {
                self.expect("}", "{'}', ','}")?;
                return Ok(fields);
            }
        }
    }

    /// Takes `,` and `close`, the one thing an empty list or map may have.
    fn comma_before(&mut self, close: &str) -> bool {
        let both = self.token(0).is(",") && self.token(1).is(close);
        if both {
            self.at += 2;
        }
        both
    }

    fn list(&mut self) -> Parsed {
        let open = self.take();
        let mut elements = Vec::new();
        loop {
            if self.take_if("]").is_some() || (elements.is_empty() && self.comma_before("]")) {
                break;
            }
            self.operand_here(OPERAND_OR_BRACKET, "]")?;
            let optional = self.take_if("?").is_some();
            elements.push((*self.expr()?, optional));
            if self.take_if(",").is_none() {
                self.expect("]", "{']', ','}")?;
                break;
            }
        }
        self.make(open.offset, Kind::List(elements))
    }

    fn map(&mut self) -> Parsed {
        let open = self.take();
        let mut entries = Vec::new();
        loop {
            if self.take_if("}").is_some() || (entries.is_empty() && self.comma_before("}")) {
                break;
            }
            self.operand_here(OPERAND_OR_BRACE, "}")?;
            let optional = self.take_if("?").is_some();
            let key = self.expr()?;
            self.expect(":", "':'")?;
            let value = self.expr()?;
            entries.push(Entry { key: *key, value: *value, optional });
            if self.take_if(",").is_none() {
                self.expect("}", "{'}', ','}")?;
                break;
            }
        }
        self.make(open.offset, Kind::Map(entries))
    }

    fn literal(&mut self) -> Parsed {
        let mut token = self.take();
        let start = token.offset;
        let negative = token.is("-");
        if negative {
            token = self.take();
        }
        let value = match token.kind {
            TokenKind::Symbol("true") => Ok(Value::Bool(true)),
            TokenKind::Symbol("false") => Ok(Value::Bool(false)),
            TokenKind::Symbol(_) => Ok(Value::Null),
            TokenKind::Int => int(token.text, negative).map(Value::Int).ok_or("invalid int literal"),
            TokenKind::Uint => {
                uint(token.text.trim_end_matches(['u', 'U'])).map(Value::Uint).ok_or("invalid uint literal")
            }
            TokenKind::Float => float(token.text, negative).map(Value::Double).ok_or("invalid double literal"),
            TokenKind::Bytes => {
                unescape::bytes(token.text.get(1..).unwrap_or_default()).map(|b| Value::Bytes(b.into()))
            }
            _ => unescape::string(token.text).map(|text| Value::text(&text)),
        };
        match value {
            Ok(value) => self.make(start, Kind::Literal(value)),
            Err(message) => self.broken(start, message),
        }
    }
}

fn strength_of(token: &Token<'_>) -> Option<(usize, &'static str)> {
    let TokenKind::Symbol(symbol) = token.kind else { return None };
    OPERATORS.iter().find(|(_, own, _)| *own == symbol).map(|(strength, _, function)| (*strength, *function))
}

fn uint(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn int(text: &str, negative: bool) -> Option<i64> {
    let number = i128::from(uint(text)?);
    i64::try_from(if negative { -number } else { number }).ok()
}

fn float(text: &str, negative: bool) -> Option<f64> {
    let number: f64 = text.parse().ok()?;
    number.is_finite().then_some(if negative { -number } else { number })
}

/// A comprehension that gives `value` the name `name` within `result`.
pub(crate) fn bind(nodes: &mut Nodes, offset: u32, name: &str, value: Expr, result: Expr) -> Kind {
    let range = nodes.make(offset, Kind::List(Vec::new()));
    let condition = nodes.make(offset, Kind::Literal(Value::Bool(false)));
    let step = nodes.make(offset, Kind::Ident(name.to_owned()));
    Kind::Fold(Box::new(Fold {
        range,
        var: UNUSED.to_owned(),
        var2: None,
        accumulator: name.to_owned(),
        init: value,
        condition,
        step,
        result,
    }))
}
