use super::*;

#[test]
fn a_whole_file() {
    let config = NodeConfig::from_toml(
        r#"
        name = "shop-7"
        listen = "0.0.0.0:8080"
        admin = "127.0.0.1:0"
        state = "/var/lib/marram"
        admin_tls = { cert = "cert.pem", key = "key.pem" }
        trusted_proxies = ["10.0.0.0/8"]
        instances = 64
        code_idle = "1m"
        keep = "1d"
        keep_bytes = "64MiB"
        drain = "5s"
        outbound = { extra_roots = ["site.pem", "/etc/lab.pem"] }
        "#,
    )
    .expect("valid");
    assert_eq!((config.name.as_str(), config.instances, config.listen.port()), ("shop-7", 64, 8080));
    assert_eq!((config.keep, config.drain), (Duration::from_secs(86_400), Duration::from_secs(5)));
    assert_eq!(config.code_idle, Duration::from_secs(60));
    assert_eq!(config.extra_roots, [Path::new("site.pem"), Path::new("/etc/lab.pem")]);
    assert_eq!(NodeConfig::from_toml("").expect("all defaults").listen, NodeConfig::default().listen);
}

#[test]
fn errors_show_the_line_and_the_nearest_name() {
    let error = NodeConfig::from_toml("name = \"a\"\nlisten_ = \"127.0.0.1:1\"\n").expect_err("misspelt").to_string();
    assert!(error.contains("line 2, column 1") && error.contains("did you mean `listen`?"), "{error}");
    for (written, step) in [
        ("listen = \"localhost:3000\"", "such as `127.0.0.1:3000`"),
        ("listen = 3000", "such as `127.0.0.1:3000`"),
        ("mqtt = { listen = \":1883\" }", "such as `127.0.0.1:3000`"),
        ("keep_bytes = 64", "such as \"64MiB\""),
        ("name = shop", "`name = \"shop\"`"),
    ] {
        let error = NodeConfig::from_toml(written).expect_err(written).to_string();
        assert!(error.contains(step), "{step:?} is not in:\n{error}");
    }
    for bad in [
        "listen = \"3000\"",
        "instances = 0",
        "drain = \"2h\"",
        "code_idle = \"2d\"",
        "outbound = { roots = [] }",
        "name = \"\"",
        "token = \"x\"",
        "token_file = \"t\"",
    ] {
        assert!(NodeConfig::from_toml(bad).is_err(), "{bad} was taken");
    }
}

#[test]
fn paths_are_relative_to_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("node.toml");
    let text =
        "state = \"s\"\nadmin_tls = { cert = \"c\", key = \"k\" }\n[outbound]\nextra_roots = [\"a.pem\", \"/b.pem\"]";
    std::fs::write(&file, text).expect("a file");
    let config = NodeConfig::read(&file).expect("valid");
    let inside = |name: &str| folder.path().join(name);
    assert_eq!(config.state, inside("s"));
    assert_eq!(config.admin_tls, Some(TlsFiles { cert: inside("c"), key: inside("k") }));
    assert_eq!(config.extra_roots, [inside("a.pem"), "/b.pem".into()]);
}

#[test]
fn an_open_admin_address_needs_token_and_tls() {
    let token = Token::new("0123456789abcdef").expect("long enough");
    let tls = TlsFiles { cert: "c".into(), key: "k".into() };
    let open = NodeConfig { admin: "0.0.0.0:7070".parse().expect("an address"), ..NodeConfig::default() };
    let error = open.check().expect_err("neither").to_string();
    assert!(error.contains("a token") && error.contains("TLS"), "{error}");
    assert!(NodeConfig { token: Some(token.clone()), ..open.clone() }.check().is_err());
    assert!(NodeConfig { admin_tls: Some(tls.clone()), ..open.clone() }.check().is_err());
    assert!(NodeConfig { token: Some(token), admin_tls: Some(tls), ..open }.check().is_ok());
    assert!(NodeConfig::default().check().is_ok());
}

#[test]
fn a_token_is_not_shown_and_tells_itself_apart() {
    let token = Token::new("0123456789abcdef").expect("long enough");
    assert!(token.is(b"0123456789abcdef"));
    assert!(!token.is(b"0123456789abcdeF") && !token.is(b""));
    assert!(!format!("{token:?}").contains("0123"));
    assert!(Token::new("short").is_err() && Token::new("0123456789abcde\n").is_err());
}
