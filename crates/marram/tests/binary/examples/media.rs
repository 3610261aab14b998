//! Media on upload: real photos get renditions and lose them; what is no photo is refused at once.
//!
//! `scripts/photos.sh` fetches the photos; one that is missing is a failure.

use std::collections::BTreeSet;
use std::path::PathBuf;

use marram_testkit::eventually;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::{events, example};
use crate::support::{Node, client};
use crate::templates;

/// A node with the example on it, which is built once for all tests.
async fn studio() -> Node {
    static BUILT: OnceCell<()> = OnceCell::const_new();
    BUILT.get_or_init(|| async { templates::build(&example("media")).await }).await;
    let node = Node::start().await;
    node.deploy(&example("media")).await;
    node
}

fn photo(name: &str) -> Vec<u8> {
    let folder = std::env::var_os("MARRAM_PHOTOS").map_or_else(
        || {
            let test = std::env::current_exe().unwrap();
            test.ancestors().nth(3).unwrap().join("photos")
        },
        PathBuf::from,
    );
    let file = folder.join(name);
    std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}: run scripts/photos.sh", file.display()))
}

/// What a JPEG is, by its markers (ITU-T T.81 annex B): width, height, and whether it has EXIF.
fn jpeg(bytes: &[u8]) -> (u32, u32, bool) {
    assert!(bytes.starts_with(&[0xff, 0xd8]) && bytes.ends_with(&[0xff, 0xd9]), "it has no start or no end");
    let u16_at = |at: usize| u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    let (mut at, mut exif) = (2, false);
    loop {
        assert_eq!(bytes[at], 0xff, "there is no marker at {at}");
        match bytes[at + 1] {
            0xc0..=0xc2 => return (u16_at(at + 7), u16_at(at + 5), exif),
            0xe1 => exif |= bytes[at + 4..].starts_with(b"Exif"),
            _ => {}
        }
        at += 2 + u16_at(at + 2) as usize;
    }
}

/// The photo with EXIF that has it turned by 90° clockwise to be shown.
fn turned(photo: &[u8]) -> Vec<u8> {
    let exif = b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    [&photo[..2], exif, &photo[2..]].concat()
}

/// The photo with a header that says it has 65535 by 65535 pixels.
fn bomb(photo: &[u8]) -> Vec<u8> {
    let at = photo.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    let mut bomb = photo.to_vec();
    bomb[at + 5..at + 9].fill(0xff);
    bomb
}

impl Node {
    async fn upload(&self, name: &str, bytes: &[u8]) {
        let file = self.home.path().join("upload");
        std::fs::write(&file, bytes).unwrap();
        self.marram(&["blob", "put", "uploads", file.to_str().unwrap(), "--name", name]).run().await.expect(0);
    }

    async fn media(&self) -> Vec<Value> {
        events(&client(&self.admin_url), "media").await
    }

    /// The event of a photo, once it is there.
    async fn rendered(&self, name: &str) -> Value {
        let event = eventually(&format!("{name} has renditions"), || async {
            self.media().await.into_iter().find(|event| event["data"]["name"] == name)
        })
        .await;
        assert_eq!((&event["type"], &event["subject"]), (&"com.example.photo.rendered".into(), &name.into()));
        event["data"].clone()
    }

    async fn renditions(&self) -> BTreeSet<String> {
        let listed = self.marram(&["blob", "ls", "renditions", "--json"]).done().await;
        listed.lines().map(|line| name_of(&serde_json::from_str(line).unwrap())).collect()
    }

    async fn has_only(&self, names: &[&str]) {
        let names = names.iter().map(ToString::to_string).collect();
        eventually(&format!("the only renditions are {names:?}"), || async {
            (self.renditions().await == names).then_some(())
        })
        .await;
    }

    async fn fetch(&self, rendition: &str) -> Vec<u8> {
        let file = self.home.path().join("rendition");
        self.marram(&["blob", "get", "renditions", rendition, file.to_str().unwrap()]).run().await.expect(0);
        std::fs::read(&file).unwrap()
    }

    /// Compares what was made of a photo with what was said of it, and with how it has to be.
    async fn check(&self, name: &str, size: (u32, u32), renditions: [(u32, u32); 2]) {
        let data = self.rendered(name).await;
        assert_eq!((&data["width"], &data["height"]), (&size.0.into(), &size.1.into()), "{data}");
        let told = data["renditions"].as_array().unwrap();
        assert_eq!(told.len(), 2, "{data}");
        for ((told, side), expected) in told.iter().zip(["320", "1024"]).zip(renditions) {
            assert_eq!(name_of(told), format!("{name}/{side}.jpg"));
            let bytes = self.fetch(&name_of(told)).await;
            let (width, height, exif) = jpeg(&bytes);
            assert_eq!((width, height, exif), (expected.0, expected.1, false), "{told}");
            assert_eq!((&told["width"], &told["height"]), (&width.into(), &height.into()), "{told}");
            assert_eq!(told["size"], bytes.len(), "{told}");
            // The aspect, to a pixel of the original.
            assert!((width * size.1).abs_diff(height * size.0) <= size.0.max(size.1), "{told}");
        }
    }
}

fn name_of(object: &Value) -> String {
    object["name"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn photos_have_renditions_until_they_are_deleted() {
    let node = studio().await;
    let (china, flower) = (photo("china.jpg"), photo("flower.jpg"));
    assert_eq!((jpeg(&china).0, jpeg(&china).1), (640, 427));
    assert_eq!((jpeg(&flower).0, jpeg(&flower).1), (640, 427));
    node.upload("china.jpg", &china).await;
    node.upload("2026/die Blüte \"100%\".jpg", &flower).await;
    node.upload("turned.jpg", &turned(&china)).await;
    node.check("china.jpg", (640, 427), [(320, 214), (640, 427)]).await;
    node.check("2026/die Blüte \"100%\".jpg", (640, 427), [(320, 214), (640, 427)]).await;
    // One that lies on its side is shown upright.
    node.check("turned.jpg", (427, 640), [(214, 320), (427, 640)]).await;
    assert_ne!(node.fetch("china.jpg/320.jpg").await, node.fetch("2026/die Blüte \"100%\".jpg/320.jpg").await);
    let six = node.renditions().await;
    assert_eq!(six.len(), 6, "{six:?}");

    // They go with the photo, and with one that something else replaces; those of others stay.
    node.marram(&["blob", "rm", "uploads", "2026/die Blüte \"100%\".jpg"]).run().await.expect(0);
    node.upload("turned.jpg", b"no longer").await;
    node.has_only(&["china.jpg/1024.jpg", "china.jpg/320.jpg"]).await;
    assert_eq!(node.media().await.len(), 3);
    node.drain().await.expect(0);
}

#[tokio::test]
async fn what_is_no_photo_is_a_dead_letter_at_once() {
    let node = studio().await;
    let china = photo("china.jpg");
    let refused = [
        ("note.txt", b"a note".to_vec(), "422 Unprocessable Entity: note.txt: it is neither a JPEG nor a PNG"),
        ("empty.jpg", Vec::new(), "422 Unprocessable Entity: empty.jpg: it is neither a JPEG nor a PNG"),
        ("cut.jpg", china[..300].to_vec(), "422 Unprocessable Entity: cut.jpg: it cannot be decoded: "),
        ("bomb.jpg", bomb(&china), "413 Payload Too Large: bomb.jpg: 65535x65535 are more pixels than 16000000"),
    ];
    for (name, bytes, _) in &refused {
        node.upload(name, bytes).await;
    }
    node.upload("china.jpg", &china).await;
    node.rendered("china.jpg").await;
    let admin = client(&node.admin_url);
    let dead = eventually("the dead letters", || async {
        let dead = events(&admin, "objects.dead").await;
        (dead.len() == refused.len()).then_some(dead)
    });
    let (dead, log) = (dead.await, admin.get("/v1/logs").await.text());
    for (name, _, why) in &refused {
        let letter = dead.iter().find(|letter| letter["subject"] == format!("uploads/{name}"));
        let letter = letter.unwrap_or_else(|| panic!("{name} is not in {dead:?}"));
        assert!(letter["marramreason"].as_str().unwrap().starts_with(why), "{letter}");
        // It was not tried again.
        assert_eq!(letter["marramattempts"], 1, "{letter}");
        let (_, why) = why.split_once(": ").unwrap();
        assert!(log.contains(why), "{why:?} is not in {log}");
    }
    node.has_only(&["china.jpg/1024.jpg", "china.jpg/320.jpg"]).await;
    assert_eq!(node.media().await.len(), 1);
    node.drain().await.expect(0);
}
