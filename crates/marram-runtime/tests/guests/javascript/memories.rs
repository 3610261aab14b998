//! Every request of a fresh function starts with the memory that its script left, and with nothing of another request.

use futures::future::join_all;

use crate::host::{Host, get};

/// Writes all over its heap and beyond it, and says whether it has found anything of another request or of another function.
const WRITING: &str = "const rows = Array.from({ length: 4000 }, (_, n) => ({ n, by: 0 }));
let by = 0;
export default { fetch() {
    const found = by !== 0 || rows.some((row, n) => row.by !== 0 || row.n !== n);
    by = NAME;
    for (let n = 0; n < rows.length; n += 61) rows[n].by = NAME;
    new Uint8Array(3 << 20).fill(NAME);
    return new Response(`NAME ${found}`);
} }";

#[tokio::test(flavor = "multi_thread")]
async fn functions_that_take_turns_in_the_same_memories_see_nothing_of_each_other() {
    let names = ["1", "2", "3"];
    let table =
        |name: &&str| format!("[[function]]\nname = \"f{name}\"\ncomponent = \"{name}.js\"\ninstances = \"fresh\"\n");
    let tables: String = names.iter().map(table).collect();
    let sources = names.map(|name| (format!("{name}.js"), WRITING.replace("NAME", name)));
    let sources: Vec<(&str, &str)> = sources.iter().map(|(file, source)| (file.as_str(), source.as_str())).collect();
    let host = Host::try_sources(&tables, &sources).await.expect("they load");
    // More than once past each look at what was written (`js/scatter.rs`).
    for _ in 0..12 {
        let asked = (0..12).map(|n| {
            let name = names[n % names.len()];
            let (host, function) = (&host, host.function(&format!("f{name}")));
            async move {
                let response = host.send_to(function, get("/")).await.expect("it answers");
                let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("it ends").to_bytes();
                assert_eq!(body, format!("{name} false"));
            }
        });
        join_all(asked).await;
    }
}
