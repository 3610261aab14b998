//! Functions that read and write objects by `wasi:blobstore`.

use marram_testkit::{TestNode, guest};

fn manifest(grants: &str) -> String {
    format!(
        "manifest_version = 1\n[app]\nname = \"site\"\n[[function]]\nname = \"f\"\ncomponent = \"objects.wasm\"\n\
         on = [{{ http = \"/...\" }}]\nlimits = {{ cpu = \"5s\", deadline = \"20s\" }}\n{grants}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn by_wasi_blobstore() {
    let node = TestNode::start().await;
    node.deploy(&manifest("allow = { blob = [\"pictures\", \"other\"] }"), &[("f", guest("objects.wasm"))])
        .await
        .unwrap();
    let calls = [
        ("/pictures/create", "pictures"),
        ("/pictures/is-there", "true"),
        ("/pictures/has/a", "false"),
        ("/pictures/get/a", "has no object \"a\""),
        ("/pictures/put/a/one", "put"),
        ("/pictures/get/a", "3: one"),
        ("/pictures/put-late/a/another", "put"),
        ("/pictures/get/a", "7: another"),
        ("/pictures/part/a/2/4", "3: oth"),
        ("/pictures/part/a/4/400", "3: her"),
        ("/pictures/part/a/4/2", "ends before it begins"),
        ("/pictures/info/a", "pictures a 7"),
        ("/pictures/abandon/half", "abandoned"),
        ("/pictures/has/half", "false"),
        ("/pictures/unnamed", "call `write-data` before `finish`"),
        ("/pictures/big/big/3000000", "put"),
        ("/pictures/sum/big", "3000000 true"),
        ("/other/create", "other"),
        ("/pictures/copy/a/b", "copied"),
        ("/pictures/move/b/c", "moved"),
        ("/pictures/copy/none/b", "has no object \"none\""),
        ("/pictures/list/0", "0 skipped a big c"),
        ("/pictures/list/2", "2 skipped c"),
        ("/pictures/list/9", "3 skipped"),
        ("/pictures/delete/a/none", "deleted"),
        ("/pictures/list/0", "0 skipped big c"),
        ("/pictures/clear", "cleared"),
        ("/pictures/list/0", "0 skipped"),
        ("/pictures/drop", "dropped"),
        ("/pictures/is-there", "false"),
        ("/pictures/put/a/b", "there is no bucket"),
        ("/secret/put/a/b", "add \"secret\" to its allow.blob"),
    ];
    for (path, expected) in calls {
        let told = node.http().get(path).await.text();
        assert!(told.contains(expected), "{path}: {expected:?} is not in {told:?}");
    }
    let refused = node.deploy(&manifest(""), &[("f", guest("objects.wasm"))]).await.unwrap_err();
    assert!(refused.message().contains("allow = { blob = [\"<bucket>\"] }"), "{refused}");
    node.stop().await;
}
