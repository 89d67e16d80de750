//! Expressions and what they are: values, failures, and what does not compile.
#![allow(missing_docs, reason = "tests")]

use reeve_cel::{Decl, Env, EvalError, PER_CALL_LIMIT, Type, Value};
use serde_json::{Value as Json, json};

fn eval(text: &str) -> Result<String, String> {
    let env = Env::new().variable("x", Type::Dyn);
    let program = env.compile(text).map_err(|error| error.to_string())?;
    let data = json!({ "a": { "b": [1, 2, 3], "s": "text" }, "n": null, "d": 1.5 });
    let outcome = program.run(&[("x", Value::dynamic(&data))], PER_CALL_LIMIT);
    let value = outcome.result.map_err(|error| error.to_string())?;
    Ok(match &value {
        Value::Uint(number) => format!("{number}u"),
        Value::Type(name) => format!("type {name}"),
        Value::Optional(None) => "none".to_owned(),
        Value::Bytes(bytes) => format!("{bytes:?}"),
        other => other.to_json().map_or_else(|| format!("{other:?}"), |json| json.to_string()),
    })
}

#[track_caller]
fn all(table: &[(&str, &str)]) {
    let wrong: Vec<String> = table
        .iter()
        .filter_map(|(text, wanted)| {
            let found = eval(text);
            (found.as_deref() != Ok(*wanted)).then(|| format!("{text}\n   is {found:?}\n   not {wanted}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[track_caller]
fn fail(table: &[(&str, &str)]) {
    let wrong: Vec<String> = table
        .iter()
        .filter_map(|(text, wanted)| {
            let found = eval(text);
            (found.as_ref().err().map(String::as_str) != Some(*wanted))
                .then(|| format!("{text}\n   is {found:?}\n   not Err({wanted})"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn operators_compute() {
    all(&[
        ("1 + 2 * 3", "7"),
        ("-5 / 2", "-2"),
        ("-5 % 3", "-2"),
        ("7u % 4u", "3u"),
        ("1.5 * 2.0", "3.0"),
        ("'a' + 'b'", "\"ab\""),
        ("[1] + [2, 3]", "[1,2,3]"),
        ("b'ab' == b'\\x61b'", "true"),
        ("1 < 1.5 && 2u > 1 && 3 >= 3u", "true"),
        ("1 == dyn(1.0)", "true"),
        ("'b' > 'a' && false < true", "true"),
        ("2 in [1, 2]", "true"),
        ("'a' in {'a': 1}", "true"),
        ("{1: 'x'}[1]", "\"x\""),
        ("!true || false ? 1 : 2", "2"),
        ("--1", "1"),
        ("!!true", "true"),
        ("0x1F", "31"),
        ("1e3", "1000.0"),
        ("duration('1h') + duration('30m') == duration('90m')", "true"),
        ("timestamp('2024-01-01T00:00:00Z') + duration('24h') == timestamp('2024-01-02T00:00:00Z')", "true"),
        ("timestamp('2024-03-01T12:30:00+02:00').getHours()", "10"),
        ("timestamp('2024-03-01T12:30:00Z').getHours('-05:00')", "7"),
        ("timestamp('2024-03-01T12:30:00Z').getDayOfYear()", "60"),
        ("duration('3661s').getMinutes()", "61"),
        ("r'\\d' + \"\\u00e9\\n\"", "\"\\\\dé\\n\""),
        ("'''a'b'''", "\"a'b\""),
        ("x.a.b[1] + x['a'].b[2]", "5"),
        ("type(1) == int && type(x.a) == map && type('') == string", "true"),
        ("type(timestamp('2024-01-01T00:00:00Z'))", "type google.protobuf.Timestamp"),
        ("x.n == null && dyn(null) != 1", "true"),
    ]);
}

#[test]
fn conversions_convert() {
    all(&[
        ("int('12') + int(3.9) + int(4u)", "19"),
        ("string(1.0) + string(1.5) + string(123456789.0) + string(true)", "\"11.51.23456789e+08true\""),
        ("double('1.5')", "1.5"),
        ("uint(3)", "3u"),
        ("bool('true') && !bool('0')", "true"),
        ("string(b'abc')", "\"abc\""),
        ("bytes('ab')", "[97, 98]"),
        ("string(duration('90m'))", "\"5400s\""),
        ("string(timestamp('2024-01-01T00:00:00.5Z'))", "\"2024-01-01T00:00:00.5Z\""),
        ("int(timestamp('1970-01-01T00:01:00Z'))", "60"),
    ]);
}

#[test]
fn macros_iterate() {
    all(&[
        ("[1, 2, 3].all(i, i > 0)", "true"),
        ("[1, 2, 3].exists(i, i > 2)", "true"),
        ("[1, 2, 3].exists_one(i, i > 1)", "false"),
        ("[1, 2, 3].existsOne(i, v, v > 2)", "true"),
        ("[1, 2, 3].map(i, i * 2)", "[2,4,6]"),
        ("[1, 2, 3].map(i, i > 1, i * 2)", "[4,6]"),
        ("[1, 2, 3].filter(i, i != 2)", "[1,3]"),
        ("{'a': 1, 'b': 2}.map(k, k)", "[\"a\",\"b\"]"),
        ("{'a': 1, 'b': 2}.all(k, v, v > 0 && k != 'c')", "true"),
        ("[5, 6].transformList(i, v, i + v)", "[5,7]"),
        ("[5, 6].transformList(i, v, i > 0, v)", "[6]"),
        ("{'a': 1}.transformMap(k, v, v + 1)", "{\"a\":2}"),
        ("{'a': 'b'}.transformMapEntry(k, v, {v: k})", "{\"b\":\"a\"}"),
        ("[1, 2].map(i, [3, 4].map(j, i * j))", "[[3,4],[6,8]]"),
        ("has(x.a) && !has(x.z) && has(x.a.s)", "true"),
        ("[[1], [2, 3]].map(l, l.size()).sum()", "3"),
        // A later element can decide in spite of an earlier failure.
        ("[0, 1].exists(i, 1 / i == 1)", "true"),
        ("[0, 1].all(i, 1 / i != 1)", "false"),
        ("['b', 'a'].sortBy(s, s)", "[\"a\",\"b\"]"),
    ]);
}

#[test]
fn optional_values_chain() {
    all(&[
        ("x.?a.?s.orValue('none')", "\"text\""),
        ("x.?z.?s.orValue('none')", "\"none\""),
        ("x[?'z'].hasValue()", "false"),
        ("[1, 2][?5].orValue(9)", "9"),
        ("optional.of(1).or(optional.of(2)).value()", "1"),
        ("optional.none().orValue(3)", "3"),
        ("optional.of(2).optMap(v, v * 2).value()", "4"),
        ("optional.none().optMap(v, v * 2).hasValue()", "false"),
        ("optional.of({'k': 3}).optFlatMap(m, m[?'k']).value()", "3"),
        ("[?optional.of(1), ?optional.none(), 2]", "[1,2]"),
        ("{?'a': optional.none(), 'b': 1}", "{\"b\":1}"),
        ("optional.ofNonZeroValue('').hasValue()", "false"),
        ("[1, 2].first().value() + [1, 2].last().value()", "3"),
        ("[optional.of(1), optional.none()].unwrapOpt()", "[1]"),
        ("optional.of([1]).optMap(v, [2].map(i, i + v[0])).value()", "[3]"),
    ]);
}

#[test]
fn libraries_do_what_they_say() {
    all(&[
        ("'héllo'.charAt(1) + 'héllo'.substring(2, 4)", "\"éll\""),
        ("'abcabc'.indexOf('c') + 'abcabc'.lastIndexOf('c') + 'abcabc'.indexOf('c', 3)", "12"),
        ("'abc'.lastIndexOf('a', 0) == 0 && 'abc'.indexOf('z') == -1", "true"),
        ("' A b '.trim().lowerAscii() + 'c'.upperAscii()", "\"a bC\""),
        ("'a,b,c'.split(',')", "[\"a\",\"b\",\"c\"]"),
        ("'a,b,c'.split(',', 2)", "[\"a\",\"b,c\"]"),
        ("'ab'.split('')", "[\"a\",\"b\"]"),
        ("['a', 'b'].join('-')", "\"a-b\""),
        ("'aaa'.replace('a', 'b', 2)", "\"bba\""),
        ("strings.quote('a\"b')", "\"\\\"a\\\\\\\"b\\\"\""),
        (
            "'%d %s %.2f %x %o %b %e'.format([dyn(1), 'a', 2.0, 255, 8, 5, 1234.5])",
            "\"1 a 2.00 ff 10 101 1.234500×10⁰³\"",
        ),
        ("'%s'.format([[dyn(1), 'a']])", "\"[1, \\\"a\\\"]\""),
        ("[1, 2, 3].isSorted() && ![2, 1].isSorted()", "true"),
        ("[1, 3, 2].max() - [1, 3, 2].min()", "2"),
        ("[1, 2, 1].indexOf(1) + [1, 2, 1].lastIndexOf(1)", "2"),
        ("[[1], [2]].flatten()", "[1,2]"),
        ("[3, 1, 2].sort()", "[1,2,3]"),
        ("[1, 2, 3].slice(1, 3).reverse()", "[3,2]"),
        ("lists.range(3)", "[0,1,2]"),
        ("[1, 1, 2].distinct()", "[1,2]"),
        ("sets.contains([1, 2], [2]) && sets.intersects([1], [1, 2]) && sets.equivalent([1, 1], [1])", "true"),
        ("'abc 123'.find('[0-9]+')", "\"123\""),
        ("'a1b22'.findAll('\\\\d+')", "[\"1\",\"22\"]"),
        ("'123 abc 456'.findAll('[0-9]*', 1)", "[\"123\"]"),
        ("'foobar'.matches('^fo+b')", "true"),
        ("url('https://u:p@host:80/p%20q?k=a&k=b').getHost()", "\"host:80\""),
        ("url('https://[::1]:80/p').getHostname() + url('https://h/p').getPort()", "\"::1\""),
        ("url('https://h/p?k=a&k=b').getQuery()", "{\"k\":[\"a\",\"b\"]}"),
        ("isURL('/a') && !isURL('a') && !isURL('../a')", "true"),
        ("ip('192.168.0.1').family() + ip('::1').family()", "10"),
        ("ip('127.0.0.1').isLoopback() && ip('8.8.8.8').isGlobalUnicast() && isIP('::1') && !isIP('1.2.3')", "true"),
        ("ip.isCanonical('2001:db8::abcd') && !ip.isCanonical('2001:DB8::ABCD')", "true"),
        ("cidr('192.168.0.0/24').containsIP('192.168.0.5') && !cidr('10.0.0.0/8').containsIP('11.0.0.0')", "true"),
        ("cidr('192.168.0.0/16').containsCIDR('192.168.10.0/24')", "true"),
        ("string(cidr('192.168.1.5/24').masked()) + string(cidr('10.1.2.3/8').ip())", "\"192.168.1.0/2410.1.2.3\""),
        ("quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('1k').asInteger() == 1000", "true"),
        ("quantity('50k').add(20).sub(quantity('10k')) == quantity('40020')", "true"),
        ("isQuantity('1.3Gi') && !isQuantity('x') && sign(quantity('-1')) == -1", "true"),
        (
            "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.0.0-rc1').compareTo(semver('1.0.0')) == -1",
            "true",
        ),
        ("semver('v1.2', true).minor() == 2 && !isSemver('v1.2') && isSemver('01.2', true)", "true"),
        ("!format.dns1123Label().validate('my-label').hasValue()", "true"),
        ("format.dns1123Label().validate('My').hasValue() && !format.named('nope').hasValue()", "true"),
        ("format.named('uuid').value().validate('123e4567-e89b-12d3-a456-426614174000').hasValue()", "false"),
    ]);
}

#[test]
fn failures_say_what_kubernetes_says() {
    fail(&[
        ("1 / 0", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("x.z", "no such key: z"),
        ("x.a.b[7]", "index out of bounds: 7"),
        ("x.a.b[-1]", "index out of bounds: -1"),
        ("x.a.s.z", "no such key: z"),
        ("int(x.a.s)", "type conversion error from 'string' to 'int'"),
        ("[].max() == 1", "max called on empty list"),
        ("'a'.charAt(5)", "index out of range: 5"),
        ("optional.none().value() == 1", "optional.none() dereference"),
        ("x.a.s + 1 == 2", "no such overload"),
        ("x.a * 2 == 2", "no such overload: _*_"),
        ("timestamp(x.a) == x.b", "no such overload: timestamp(map)"),
        ("x.a.s.all(i, true)", "got 'types.String', expected iterable type"),
        (
            "quantity('x') == quantity('1')",
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        ("lists.range(1000000000).size() == 1", "operation cancelled: actual cost limit exceeded"),
        (
            "'%d'.format([x.a.s])",
            "error during formatting: decimal clause can only be used on integers, was given string",
        ),
    ]);
}

#[test]
fn what_is_wrong_is_shown_where_it_is() {
    let operand = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
    let at = |place: &str, text: &str, message: &str, mark: &str| {
        format!("ERROR: <input>:{place}: {message}\n | {text}\n | {mark}")
    };
    fail(&[
        ("y", &at("1:1", "y", "undeclared reference to 'y' (in container '')", "^")),
        ("1 + y.z", &at("1:5", "1 + y.z", "undeclared reference to 'y' (in container '')", "....^")),
        ("foo(1)", &at("1:4", "foo(1)", "undeclared reference to 'foo' (in container '')", "...^")),
        ("1 + 'a'", &at("1:3", "1 + 'a'", "found no matching overload for '_+_' applied to '(int, string)'", "..^")),
        (
            "'a'.size(1)",
            &at("1:9", "'a'.size(1)", "found no matching overload for 'size' applied to 'string.(int)'", "........^"),
        ),
        ("[1, 'a']", &at("1:5", "[1, 'a']", "expected type 'int' but found 'string'", "....^")),
        (
            "1.all(i, true)",
            &at(
                "1:1",
                "1.all(i, true)",
                "expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
                "^",
            ),
        ),
        ("'a'.matches('x++')", &at("1:13", "'a'.matches('x++')", "invalid matches argument", "............^")),
        ("'a'.matches('[')", &at("1:13", "'a'.matches('[')", "invalid matches argument", "............^")),
        ("duration('x')", &at("1:10", "duration('x')", "invalid duration argument", ".........^")),
        ("has(x)", &at("1:5", "has(x)", "invalid argument to has() macro", "....^")),
        ("1 +", &at("1:4", "1 +", &format!("Syntax error: mismatched input '<EOF>' expecting {operand}"), "...^")),
        ("a b", &at("1:3", "a b", "Syntax error: extraneous input 'b' expecting <EOF>", "..^")),
        ("(1", &at("1:3", "(1", "Syntax error: missing ')' at '<EOF>'", "..^")),
        ("x.true", &at("1:3", "x.true", "Syntax error: mismatched input 'true' expecting IDENTIFIER", "..^")),
        ("for", &at("1:1", "for", "reserved identifier: for", "^")),
        ("'é' + y", &at("1:7", "'é' + y", "undeclared reference to 'y' (in container '')", ".．....^")),
        ("true && 1", &at("1:9", "true && 1", "expected type 'bool' but found 'int'", "........^")),
        ("99999999999999999999", &at("1:1", "99999999999999999999", "invalid int literal", "^")),
        (
            "'%d'.format([1, 2])",
            &at(
                "1:12",
                "'%d'.format([1, 2])",
                "too many arguments supplied to string.format (expected 1, got 2)",
                "...........^",
            ),
        ),
    ]);
}

#[test]
fn hostile_expressions_are_refused_in_time() {
    let deep = format!("{}1{}", "(".repeat(5000), ")".repeat(5000));
    assert_eq!(eval(&deep), Err("ERROR: <input>:-1:0: expression recursion limit exceeded: 250".to_owned()));
    let chain = vec!["1"; 5000].join("+");
    assert_eq!(eval(&chain), Err("ERROR: <input>:-1:0: expression recursion limit exceeded: 250".to_owned()));
    // What is just not too deep runs on the stack of an ordinary thread.
    for (open, close, depth) in [
        ("(", ")", 240),
        ("[", "]", 240),
        ("{'a': ", "}", 240),
        ("[1].map(i, ", ")", 240),
        ("true ? 1 : (", ")", 120),
        ("-(", ")", 240),
    ] {
        let deep = format!("dyn({}1{}) == x", open.repeat(depth), close.repeat(depth));
        assert!(eval(&deep).is_ok(), "{deep}: {:?}", eval(&deep));
    }
    let long = "1".repeat(100_001);
    let too_long = "ERROR: <input>:-1:0: expression code point size exceeds limit: size: 100001, limit 100000";
    assert_eq!(eval(&long), Err(too_long.to_owned()));
    // Many terms in a row are no depth.
    let terms = vec!["true"; 5000].join(" && ");
    assert_eq!(eval(&terms), Ok("true".to_owned()));
    // Each macro copies its target.
    let doubling = format!("optional.of(1){}", ".optMap(v, v)".repeat(100));
    assert!(eval(&doubling).expect_err("too large").contains("too large once its macros are expanded"));
    let limit = Err("operation cancelled: actual cost limit exceeded".to_owned());
    let many = "[1,2,3,4,5,6,7,8,9,10]";
    let nested =
        format!("{many}.all(a, {many}.all(b, {many}.all(c, {many}.all(d, {many}.all(e, {many}.all(f, true))))))");
    assert_eq!(eval(&nested), limit);
    let doubled = "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'";
    let grown = format!("{doubled}{}.size() > 0", format!(".replace('a', {doubled})").repeat(6));
    assert_eq!(eval(&grown), limit);
    for text in
        ["'\\u12'", "b'\\u0041'", "'\\ud800'", "\"\\xzz\"", "`a", "\u{0}", "'", "\"\"\"", "[1,,]", "{", "a.", "@", "|"]
    {
        assert!(eval(text).is_err(), "{text}");
    }
}

#[test]
fn objects_are_what_their_schema_says() {
    let schema = json!({ "type": "object", "properties": {
        "namespace": { "type": "string" },
        "a-b": { "type": "integer" },
        "when": { "type": "string", "format": "date-time" },
        "wait": { "type": "string", "format": "duration" },
        "data": { "type": "string", "format": "byte" },
        "port": { "x-kubernetes-int-or-string": true },
        "ratio": { "type": "number" },
        "maybe": { "type": "string", "nullable": true },
        "set": { "type": "array", "x-kubernetes-list-type": "set", "items": { "type": "string" } },
        "other": { "type": "array", "x-kubernetes-list-type": "set", "items": { "type": "string" } },
        "rows": { "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
            "type": "object", "properties": { "k": { "type": "string" }, "v": { "type": "integer" } } } },
        "labels": { "type": "object", "additionalProperties": { "type": "string" } },
        "embedded": { "type": "object", "x-kubernetes-embedded-resource": true, "properties": {} }
    }});
    let object: Json = json!({
        "namespace": "ns", "a-b": 1, "when": "2024-01-01T00:00:00Z", "wait": "1h", "data": "YWJj", "port": 80,
        "ratio": 1, "maybe": null, "set": ["a", "b"], "other": ["b", "a"], "labels": { "x": "y" },
        "rows": [{ "k": "1", "v": 1 }, { "k": "2", "v": 2 }], "embedded": { "kind": "K", "metadata": { "name": "n" } }
    });
    let decl = Decl::from_schema(&schema, "selfType", false, &|_| None).expect("a declaration");
    let env = Env::new().declared("self", &decl);
    let run = |text: &str| {
        let program = env.compile(text).map_err(|error| error.to_string())?;
        let own = Value::typed(&object, &decl).map_err(|error| error.to_string())?;
        program.run(&[("self", own)], PER_CALL_LIMIT).result.map_err(|error: EvalError| error.to_string())
    };
    for text in [
        "self.__namespace__ == 'ns' && self.a__dash__b == 1",
        "self.when < timestamp('2025-01-01T00:00:00Z') && self.wait == duration('60m')",
        "self.data == b'abc' && type(self.port) == int && self.ratio == 1.0",
        "!has(self.maybe)",
        "self.set == self.other && self.set + ['b', 'c'] == ['c', 'b', 'a']",
        "self.rows == [self.rows[1], self.rows[0]]",
        "(self.rows + [self.rows[0]]).size() == 2",
        "self.labels.x == 'y' && 'x' in self.labels && self.labels.all(k, k == 'x')",
        "self.embedded.metadata.name == 'n' && self.embedded.kind == 'K'",
    ] {
        assert!(matches!(run(text), Ok(Value::Bool(true))), "{text}: {:?}", run(text));
    }
    let error = run("self.spec").expect_err("no such field");
    assert!(error.contains("undefined field 'spec'"), "{error}");
    let error = run("self.namespace == 'ns'").expect_err("a keyword");
    assert!(error.contains("undefined field 'namespace'"), "{error}");
}
