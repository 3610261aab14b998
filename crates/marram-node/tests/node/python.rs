//! A Python instance that is used for long.

use marram_testkit::TestNode;

const ANSWERS: &str = r#"
from marram import Response

def fetch(request, env):
    return Response(b"x" * (4 << 20))
"#;

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_do_not_fill_an_instance() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.py");
    std::fs::write(&file, ANSWERS).unwrap();
    let node = TestNode::start().await;
    let manifest = "manifest_version = 1\n[app]\nname = \"site\"\n[[function]]\nname = \"f\"\ncomponent = \"app.py\"\n\
                    on = [{ http = \"/\" }]\nlimits = { memory = \"64MiB\" }\ninstances = { reuse = 1000 }\n";
    node.deploy(manifest, &[("f", file)]).await.unwrap();
    // Twice as much as the instance has memory.
    for _ in 0..32 {
        assert_eq!(node.http().get("/").await.expect(200).body.len(), 4 << 20);
    }
    node.stop().await;
}
