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
        on = [{ http = "/price/..." }, { http = "shop.example/api/:id", methods = ["GET"] }]
        limits = { memory = "64MiB", deadline = "2s", cpu = "200ms", concurrency = 128, queue = 256, body = "8MiB" }
        instances = { reuse = 128, concurrent = 16, idle = "1s", warm = 2 }
        config = { currency = "EUR" }
        secrets = ["api_key"]
        allow = { http = ["https://api.example.com", "internal:price"], addresses = ["10.0.0.0/8"] }
    "#;
    let manifest = Manifest::parse(text).expect("valid");
    let price = manifest.function("price").expect("there");
    assert_eq!(price.limits.resolve().memory, ByteSize(64 << 20));
    assert_eq!(InstancePolicy::of(price.instances.as_ref(), InstancePolicy::FRESH).warm, 2);
    let again = toml::to_string(&manifest).expect("writes");
    assert_eq!(Manifest::parse(&again).expect("what was written reads back"), manifest);
}

#[test]
fn an_unknown_key_shows_its_line_and_the_nearest_name() {
    check_error("limts = { memory = \"64MiB\" }", &["unknown field `limts`", "line 7", "did you mean `limits`?"]);
    check_error("limits = { memroy = \"64MiB\" }", &["`memroy`", "line 7", "did you mean `memory`?"]);
    check_error("instances = { resue = 2 }", &["`resue`", "did you mean `reuse`?"]);
    check_error("on = [{ htp = \"/\" }]", &["`htp`", "did you mean `http`?"]);
    check_error("zebra = 1", &["unknown field `zebra`", "expected one of"]);
}

#[test]
fn impossible_limits() {
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
fn bad_heads() {
    let check = |text: &str, part: &str| {
        let error = Manifest::parse(text).expect_err("taken").to_string();
        assert!(error.contains(part), "{part:?} is not in:\n{error}");
    };
    check("", "manifest_version");
    check("manifest_version = 2\n[app]\nname = \"a\"\n", "this Marram reads 1");
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
