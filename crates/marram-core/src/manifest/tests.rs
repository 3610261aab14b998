use super::*;
use crate::quantity::ByteSize;

const HEAD: &str = "manifest_version = 1\n[app]\nname = \"shop\"\n";

/// The error of a manifest with one function of which `lines` are a part.
#[track_caller]
fn check_error(lines: &str, expected: &[&str]) {
    let text = format!("{HEAD}[[function]]\nname = \"price\"\ncomponent = \"price.wasm\"\n{lines}\n");
    let error = Manifest::parse(&text).expect_err("the manifest was taken").to_string();
    for part in expected {
        assert!(error.contains(part), "{part:?} is not in:\n{error}");
    }
}

#[test]
fn the_example_of_the_book() {
    let text = r#"
        manifest_version = 1
        [app]
        name = "shop"
        version = "1.4.0"

        [[function]]
        name = "price"
        component = "target/wasm32-wasip2/release/price.wasm"
        build = { command = "cargo build --release --target wasm32-wasip2", watch = ["src/**/*.rs"] }
        on = [
          { http = "/price/..." },
          { http = "shop.example/api/:id", methods = ["GET"] },
          { mqtt = "plant/+/vibration", qos = 1, batch = { max = 256, wait = "20ms" } },
          { schedule = "0 */5 * * * *", timezone = "Europe/Berlin", missed = "all", in_flight = 1 },
          { stream = "readings", order = "subject", from = "new", retry = { max = 8, backoff = "100ms..1m" }, ack_wait = "5m" },
          { key = "thresholds/*" },
          { object = "uploads/*.png" },
        ]
        output = "alarms"
        limits = { memory = "64MiB", deadline = "2s", cpu = "200ms", concurrency = 128, queue = 256, body = "8MiB" }
        instances = { reuse = 128, concurrent = 16, idle = "1s", warm = 2 }
        config = { currency = "EUR" }
        secrets = ["api_key"]
        allow = { http = ["https://api.example.com", "internal:price"], addresses = ["10.0.0.0/8"], kv = ["thresholds", "state"], blob = ["uploads"], publish = ["trends"], mqtt = ["commands/#"] }

        [stream.readings]
        retain = { bytes = "1GiB", age = "7d" }
        overflow = "drop-oldest"
        dedupe = "5m"
        ingest = true
        mqtt = ["plant/#"]

        [bucket.uploads]
    "#;
    let manifest = Manifest::parse(text).expect("valid");
    let price = manifest.function("price").expect("there");
    assert_eq!(price.limits.resolve().memory, ByteSize(64 << 20));
    assert_eq!(InstancePolicy::of(price.instances.as_ref(), InstancePolicy::FRESH).warm, 2);
    assert_eq!(price.http().map(|on| on.http.to_string()).collect::<Vec<_>>(), ["/price/...", "shop.example/api/:id"]);
    let sources: Vec<_> = price.events().map(On::source).collect();
    let wanted = [
        "mqtt:plant/+/vibration",
        "schedule:0 */5 * * * * Europe/Berlin",
        "stream:readings",
        "key:thresholds/*",
        "object:uploads/*.png",
    ];
    assert_eq!(sources, wanted);
    let policy = manifest.streams["readings"].policy();
    assert_eq!((policy.bytes_max, policy.dedupe.as_secs()), (1 << 30, 300));
    let again = toml::to_string(&manifest).expect("writes");
    assert_eq!(Manifest::parse(&again).expect("what was written reads back"), manifest);
}

#[test]
fn an_unknown_key_shows_its_line_and_the_nearest_name() {
    check_error("limts = { memory = \"64MiB\" }", &["unknown field `limts`", "line 7", "did you mean `limits`?"]);
    check_error("limits = { memroy = \"64MiB\" }", &["`memroy`", "line 7", "did you mean `memory`?"]);
    check_error("instances = { resue = 2 }", &["`resue`", "did you mean `reuse`?"]);
    check_error("on = [{ htp = \"/\" }]", &["`htp`", "did you mean `http`?", "line 7"]);
    check_error("zebra = 1", &["unknown field `zebra`", "expected one of"]);
}

/// What is wrong, its hint, and (for what is not about a function) the rest of the manifest.
#[test]
fn what_cannot_be_read_has_its_next_step() {
    let function = |lines: &str| format!("{HEAD}[[function]]\nname = \"price\"\ncomponent = \"price.wasm\"\n{lines}\n");
    let whole = |text: &str| text.to_owned();
    let cases = [
        (function("on = { http = \"/x\" }"), "hint: write a list: `on = [{ http = \"/x\" }]`"),
        (function("on = \"/x\""), "hint: write a list of tables, each with its source: `on = [{ http = \"/x\" }]`"),
        (function("on = [\"/x\"]"), "expected a table\n"),
        (function("on = [\"/x\"]"), "`on = [{ http = \"/x\" }]`"),
        (function("on = [\"x\"]"), "`on = [{ http = \"/price/...\" }]`"),
        (function("[function.on]\nhttp = \"/x\""), "hint: there can be several: write `[[function.on]]`"),
        (format!("{HEAD}[function]\nname = \"price\""), "hint: there can be several: write `[[function]]`"),
        (format!("{HEAD}[[stream]]\nname = \"a\""), "hint: its name belongs into the header: write `[stream.<name>]`"),
        (function("secrets = \"key\""), "hint: write a list: `secrets = [\"key\"]`"),
        (function("allow = { kv = \"state\" }"), "hint: write a list: `kv = [\"state\"]`"),
        (function("limits = { memory = 64 }"), "expected a size in quotes, such as \"64MiB\""),
        (function("limits = { memory = 64MiB }"), "hint: text is in quotes: `memory = \"64MiB\"`"),
        (function("limits = { deadline = 2 }"), "expected a duration in quotes, such as \"2s\""),
        (function("limits = { concurrency = \"5\" }"), "hint: a number has no quotes: `concurrency = 5`"),
        (function("limits = { concurrency = \"5\" }"), "expected a whole number\n"),
        (function("limits = { concurrency = \"many\" }"), "hint: a number has no quotes and no unit"),
        (function("on = [{ stream = \"a\", retry = { backoff = 1 } }]"), "such as \"100ms..1m\""),
        (function("config = { n = 3 }"), "hint: values of `config` are text: `n = \"3\"`"),
        (function("[function.config]\nn = true"), "hint: text is in quotes: `n = \"true\"`"),
        (function("output = 3"), "hint: text is in quotes: `output = \"3\"`"),
        (whole("manifest_version = 1\n[app]\nname = typo"), "hint: text is in quotes: `name = \"typo\"`"),
        (whole("manifest_version = 1\n[app]\nname = shop"), "hint: text is in quotes: `name = \"shop\"`"),
        (whole("[app]\nname = \"shop\""), "hint: begin the file with `manifest_version = 1`"),
        (whole("manifest_version = \"1\"\n"), "hint: a number has no quotes: `manifest_version = 1`"),
    ];
    for (text, expected) in cases {
        let error = Manifest::parse(&text).expect_err("the manifest was taken").to_string();
        assert!(error.contains(expected), "{expected:?} is not in:\n{error}");
    }
}

#[test]
fn impossible_limits() {
    check_error("limits = { memory = \"64GB\" }", &["the limit `memory` is 64GB", "64KiB to 4GiB"]);
    check_error("limits = { memory = \"1B\" }", &["the limit `memory` is 1B", "64KiB to 4GiB", "line 7"]);
    check_error("limits = { deadline = \"0s\" }", &["`deadline`", "from 1ms"]);
    check_error("limits = { cpu = \"2 days\" }", &["is not a duration", "\"200ms\""]);
    check_error("limits = { concurrency = 0 }", &["`concurrency` is 0", "from 1 to 10000"]);
    check_error("limits = { concurrency = -1 }", &["line 7"]);
    check_error("instances = { reuse = 0 }", &["`reuse` is 0"]);
    check_error("instances = \"frehs\"", &["\"fresh\""]);
}

#[test]
fn bad_triggers_and_grants() {
    check_error("on = [{ http = \"price\" }]", &["is not a route", "it has no '/'"]);
    check_error("on = [{ http = \"/\", methods = [\"get\"] }]", &["upper case"]);
    check_error("on = [{ http = \"/a\" }, { http = \"/a\" }]", &["both claim /a"]);
    check_error("allow = { http = [\"api.example.com\"] }", &["is not an outbound rule", "no scheme"]);
    check_error("allow = { http = [\"internal:audit\"] }", &["the app has no function \"audit\""]);
    check_error("allow = { addresses = [\"10.0.0.0/99\"] }", &["line 7"]);
    check_error("config = { \"a b\" = \"x\" }", &["is not a key"]);
    check_error("config = { a = \"x\" }\nsecrets = [\"a\"]", &["in `config` and in `secrets`"]);
}

#[test]
fn a_trigger_has_one_source_and_what_belongs_to_it() {
    check_error("on = [{ }]", &["no source", "`schedule`", "line 7"]);
    check_error("on = [{ batch = { max = 2 } }]", &["no source"]);
    check_error("on = [{ mqtt = \"a\", stream = \"b\" }]", &["one source", "`mqtt` and `stream`", "line 7"]);
    check_error(
        "on = [{ http = \"/\", retry = { max = 2 } }]",
        &["`retry`", "`http`", "it goes with `mqtt`, `schedule`"],
    );
    check_error("on = [{ stream = \"a\", qos = 1 }]", &["`qos`", "it goes with `mqtt`"]);
    check_error("on = [{ schedule = \"* * * * *\", order = \"subject\" }]", &["`order`"]);
    check_error("on = [{ stream = \"a\", btach = { max = 1 } }]", &["`btach`", "did you mean `batch`?", "line 7"]);
    check_error("on = [{ stream = \"a\", batch = { mx = 1 } }]", &["`mx`", "line 7"]);
    check_error("on = [{ stream = \"a\" }, { stream = \"a\", batch = { max = 2 } }]", &["`stream:a` twice"]);
}

#[test]
fn bad_event_triggers() {
    check_error("on = [{ mqtt = \"plant/#/x\" }]", &["topic filter", "stands alone and last", "line 7"]);
    check_error("on = [{ mqtt = \"$share/g/plant\" }]", &["shared subscription"]);
    check_error("on = [{ mqtt = \"a\", qos = 3 }]", &["0, 1 or 2"]);
    check_error("on = [{ schedule = \"* * *\" }]", &["five fields", "line 7"]);
    check_error("on = [{ schedule = \"* * * * * $\" }]", &["character"]);
    check_error("on = [{ schedule = \"* * * * *\", missed = \"never\" }]", &["`never`", "`once`"]);
    check_error("on = [{ stream = \"Readings\" }]", &["is not a name"]);
    check_error("on = [{ stream = \"a\", batch = { max = 0 } }]", &["`max` is 0", "1 to 1000"]);
    check_error("on = [{ stream = \"a\", batch = { max = 2, wait = \"2m\" } }]", &["`wait` is 2m"]);
    check_error("on = [{ stream = \"a\", retry = { max = 0 } }]", &["`max` is 0"]);
    check_error("on = [{ stream = \"a\", retry = { backoff = \"1m..1s\" } }]", &["not a back-off", "100ms..1m"]);
    check_error("on = [{ stream = \"a\", retry = { backoff = \"soon\" } }]", &["not a duration"]);
    check_error("on = [{ stream = \"a\", in_flight = 0 }]", &["`in_flight` is 0"]);
    check_error("on = [{ stream = \"a\", ack_wait = \"1ms\" }]", &["`ack_wait` is 1ms"]);
    check_error("on = [{ stream = \"a\", from = \"last\" }]", &["`first`"]);
    check_error("on = [{ key = \"thresholds\" }]", &["bucket and a pattern"]);
    check_error("on = [{ key = \"*/x\" }]", &["does not begin with a bucket"]);
    check_error("on = [{ object = \"uploads/***\" }]", &["is not a pattern"]);
    check_error("on = [{ stream = \"a\" }]\noutput = \"a\"", &["its output is \"a\"", "never end"]);
    check_error("output = \"mqtt\"", &["only the node publishes"]);
    check_error("output = \"a.dead\"", &["dead-letter stream"]);
    check_error("allow = { publish = [\"keys\"] }", &["only the node publishes"]);
    check_error("allow = { mqtt = [\"a#\"] }", &["topic filter"]);
    check_error("allow = { kv = [\"A\"] }", &["is not a name"]);
    check_error("allow = { kv = [\"marram-schedule\"] }", &["the node's own"]);
    check_error("on = [{ key = \"marram-schedule/**\" }]", &["the node's own"]);
}

#[test]
fn an_app_may_declare_only_streams_or_buckets() {
    let parse = |rest: &str| Manifest::parse(&format!("{HEAD}{rest}\n")).map_err(|error| error.to_string());
    assert!(parse("[stream.readings]").is_ok());
    assert!(parse("[bucket.uploads]").is_ok());
    assert!(parse("[stream.mqtt]\nretain = { bytes = \"4GiB\" }").is_ok());
    let bad = |rest: &str, part: &str| {
        let error = parse(rest).expect_err(rest);
        assert!(error.contains(part), "{part:?} is not in:\n{error}");
    };
    bad("[stream.Readings]", "is not a name");
    bad("[stream.a]\nretian = 1", "did you mean `retain`?");
    bad("[stream.a]\nretain = { bytes = \"1KiB\" }", "`bytes` is 1KiB");
    bad("[stream.a]\nretain = { age = \"0s\" }", "`age` is 0s");
    bad("[stream.a]\noverflow = \"drop\"", "`drop-oldest`");
    bad("[stream.a]\ndedupe = \"8d\"", "`dedupe` is");
    bad("[stream.a]\nmqtt = [\"a#\"]", "topic filter");
    bad("[stream.mqtt]\ningest = true", "line 4");
    bad("[bucket.a]\nsize = 1", "unknown field `size`");
}

#[test]
fn typescript_is_built_first() {
    let text = format!("{HEAD}[[function]]\nname = \"price\"\ncomponent = \"src/index.ts\"\n");
    let error = Manifest::parse(&text).expect_err("the manifest was taken").to_string();
    assert!(error.contains("src/index.ts is TypeScript") && error.contains("--template http-ts"), "{error}");
}

#[test]
fn bad_heads() {
    let check = |text: &str, part: &str| {
        let error = Manifest::parse(text).expect_err("taken").to_string();
        assert!(error.contains(part), "{part:?} is not in:\n{error}");
    };
    check("", "manifest_version");
    check("manifest_version = 2\n[app]\nname = \"a\"\n", "this Marram reads 1");
    check("manifest_version = 2\n[app]\nname = \"a\"\n[fleet]\nsize = 3\n", "install a newer Marram");
    check("manifest_version = 2\n", "manifest_version is 2");
    check(HEAD, "the app has no function");
    check("manifest_version = 1\n[app]\nname = \"Shop\"\n", "is not a name");
    check("not toml at all", "line 1");
    check(&"#".repeat(MANIFEST_BYTES_MAX + 1), "split the app");
    let twice =
        format!("{HEAD}[[function]]\nname = \"a\"\ncomponent = \"x\"\n[[function]]\nname = \"a\"\ncomponent = \"x\"\n");
    check(&twice, "two functions are called \"a\"");
}

proptest::proptest! {
    #[test]
    fn any_text_gives_an_error_and_not_a_panic(text in "\\PC{0,300}") {
        let _ = Manifest::parse(&text).map_err(|error| error.to_string());
        let _ = Manifest::parse(&format!("{HEAD}{text}")).map_err(|error| error.to_string());
    }
}
