//! `marram blob`: objects go in and come back, and the node's own S3 key is there for who may read it.

use rustix::process::Signal;

use crate::support::{client, folder, marram};

#[tokio::test]
async fn objects_go_in_and_come_back_also_by_pipe() {
    let home = folder();
    std::fs::write(home.path().join("node.toml"), "state = \"state\"\ninstances = 64\n").unwrap();
    let args =
        ["node", "--config", "node.toml", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--s3", "127.0.0.1:0"];
    let mut running = marram(&args).at(home.path()).start().await;
    let (_, admin) = running.ready().await;
    let printed = running.prints("s3=http://127.0.0.1:").await;
    let blob = |args: &[&str]| marram(&[&["blob"], args].concat()).env("MARRAM_NODE", &admin).at(home.path());

    blob(&["buckets"]).run().await.expect(0).without_data().says(&["--create"]);
    blob(&["put", "b", "node.toml"])
        .run()
        .await
        .expect(5)
        .without_data()
        .says(&["there is no bucket \"b\"", "--create b"]);
    blob(&["buckets", "--create", "b"]).run().await.expect(0).says(&["created"]);
    assert_eq!(blob(&["buckets", "--json"]).json().await["bucket"], "b");
    blob(&["ls", "b"]).run().await.expect(0).without_data().says(&["no object in b yet", "`marram blob put b FILE`"]);
    blob(&["ls", "other"]).run().await.expect(5).without_data().says(&["there is no bucket \"other\""]);
    let stored =
        blob(&["put", "b", "node.toml", "--name", "deep/a b.toml", "--content-type", "text/x", "--json"]).json().await;
    assert_eq!((&stored["name"], &stored["content_type"]), (&"deep/a b.toml".into(), &"text/x".into()));
    blob(&["put", "b", "-", "--name", "piped"]).stdin("by pipe").run().await.expect(0).says(&["stored"]);
    blob(&["put", "b", "-"]).stdin("x").run().await.expect(2).without_data().says(&["--name"]);
    let folder = home.path().to_str().unwrap();
    blob(&["put", "b", folder]).run().await.expect(2).without_data().says(&[folder, "is a folder", "hint: "]);
    blob(&["put", "b", "none"]).run().await.expect(5).without_data().says(&["cannot open none"]);
    blob(&["put", "b", "/dev/null"]).run().await.expect(2).without_data().says(&["is not a file", "pipe it in"]);
    // It can be opened, and not be read.
    blob(&["put", "b", "/proc/self/mem"]).run().await.expect(1).without_data().says(&["cannot read /proc/self/mem"]);
    blob(&["put", "b", "-", "--name", "piped", "--if-absent"]).stdin("x").run().await.expect(7).without_data();
    assert_eq!(blob(&["get", "b", "piped", "-"]).done().await, "by pipe");
    assert_eq!(blob(&["ls", "b", "--prefix", "p", "--json"]).json().await["name"], "piped");
    let listed = blob(&["ls", "b", "--folders"]).done().await;
    assert!(listed.contains("deep/") && !listed.contains("a b.toml"), "{listed}");
    blob(&["get", "b", "deep/a b.toml"]).run().await.expect(0).says(&["fetched"]);
    let of = |name: &str| std::fs::read(home.path().join(name)).unwrap();
    assert_eq!(of("a b.toml"), of("node.toml"));
    // What is there besides is nobody's but its owner's: a file of a like name, and where a link leads to.
    for (name, content) in [("kept.part", "mine"), ("target", "old")] {
        std::fs::write(home.path().join(name), content).unwrap();
    }
    std::os::unix::fs::symlink("target", home.path().join("kept")).unwrap();
    blob(&["get", "b", "piped", "kept"]).run().await.expect(0).says(&["fetched"]);
    assert_eq!([of("kept.part"), of("target")], [b"mine".to_vec(), b"by pipe".to_vec()]);
    assert!(home.path().join("kept").is_symlink());
    blob(&["get", "b", "piped", "/dev/null"]).run().await.expect(0).says(&["fetched"]);
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    assert!(
        std::fs::read_dir(home.path()).unwrap().all(|file| !file
            .unwrap()
            .file_name()
            .as_encoded_bytes()
            .starts_with(b".marram-"))
    );
    blob(&["get", "b", "none", "-"]).run().await.expect(5).without_data().says(&["marram blob ls b"]);
    blob(&["rm", "b", "piped"]).run().await.expect(0).says(&["deleted"]);
    blob(&["buckets", "--delete", "b"]).run().await.expect(7).without_data().says(&["not empty"]);

    let key = blob(&["key", "--state", "state", "--endpoint", "http://x", "--json"]).json().await;
    let secret = key["secret_access_key"].as_str().unwrap().to_owned();
    let shell = blob(&["key", "--state", "state"]).done().await;
    assert!(shell.contains(&format!("export AWS_SECRET_ACCESS_KEY={secret}\n")), "{shell}");
    blob(&["key", "--state", "elsewhere"]).run().await.expect(5).without_data().says(&["--s3"]);
    // Nobody gets anything of S3 without it.
    let url = printed.lines().find_map(|line| line.strip_prefix("s3=")).unwrap().to_owned();
    let refused = client(&url).get("/b/piped").await.expect(403);
    assert!(refused.text().contains("AccessDenied"), "{refused:?}");
    running.signal(Signal::TERM);
    let ended = running.ended().await.expect(0);
    assert!(!ended.stderr.contains(&secret), "{ended:?}");
}

/// RLIMIT_FSIZE, whose signal would end the node.
#[tokio::test]
async fn what_is_larger_than_a_file_may_be_is_refused_as_on_a_full_disk() {
    let home = folder();
    let args = ["node", "--state", "state", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let limited = ["-c", "ulimit -f 8192; exec \"$@\"", "bash"];
    let mut running = marram(&args).at(home.path()).under("bash", &limited).start().await;
    let (_, admin) = running.ready().await;
    let blob = |args: &[&str]| marram(&[&["blob"], args].concat()).env("MARRAM_NODE", &admin).at(home.path());
    blob(&["buckets", "--create", "b"]).run().await.expect(0);
    std::fs::write(home.path().join("large"), vec![7; 9 << 20]).unwrap();
    let refused = blob(&["put", "b", "large"]).run().await.without_data().says(&["disk is full"]);
    assert_ne!(refused.code, Some(0));
    blob(&["put", "b", "-", "--name", "small"]).stdin("content").run().await.expect(0);
    assert_eq!(blob(&["get", "b", "small", "-"]).done().await, "content");
    running.signal(Signal::TERM);
    running.ended().await.expect(0);
}
