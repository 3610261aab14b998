//! Deploying, rolling back, removing; and the blobs that go with it.
use std::time::Duration;

use crate::support::{NOW, name, open, put, version};
use marram_core::{Digest, Failure, Kind};
use marram_store::{Deployment, Finding, Store, StoreConfig, StoreError, check_state_dir};

#[tokio::test]
async fn the_last_revisions_are_kept_and_rolled_back_to() {
    let dir = tempfile::tempdir().unwrap();
    let shop = name("shop");
    let mut digests = Vec::new();
    {
        let store = open(&dir);
        assert!(matches!(store.app(&shop), Err(StoreError::NoApp(_))));
        for n in 0..12 {
            let new = version(&store, "shop", n);
            digests.push(new.revision);
            let deployed = store.deploy(new).await.unwrap();
            assert_eq!(deployed.generation, n + 1);
            assert_eq!(deployed.previous, n.checked_sub(1).map(|n| digests[n as usize]));
            assert_eq!(deployed.dropped, if n < 10 { vec![] } else { vec![digests[n as usize - 10]] });
        }
    }
    let store = open(&dir);
    let app = store.app(&shop).unwrap();
    assert_eq!((app.generation, app.current.digest, app.current.deployed_unix_ns), (12, digests[11], NOW + 11));
    assert!(app.current.manifest.starts_with("# version 11"));
    assert_eq!(app.current.components.len(), 2);
    assert_eq!(app.current.kinds, [(name("own"), "kind 11".to_owned())].into());
    assert_eq!(store.apps().unwrap(), [app]);
    let revisions = store.revisions(&shop).unwrap();
    assert_eq!(revisions.len(), 10);
    assert!(revisions[0].current && revisions[1..].iter().all(|revision| !revision.current));

    // Back, and back again; then forward by name.
    for expected in [10, 9] {
        let target = store.rollback_target(&shop, None).unwrap();
        assert_eq!(target.digest, digests[expected]);
        store.activate(&shop, target.digest).await.unwrap();
        assert_eq!(store.app(&shop).unwrap().current.digest, digests[expected]);
    }
    let wanted = digests[11].to_string();
    assert_eq!(store.rollback_target(&shop, Some(&wanted[..20])).unwrap().digest, digests[11]);
    assert!(matches!(store.rollback_target(&shop, Some("sha256:zz")), Err(StoreError::Invalid(_))));
    assert!(matches!(store.activate(&shop, digests[0]).await, Err(StoreError::NoRevision { .. })));

    // Deploying an old revision again makes it the latest, and it is not dropped as the oldest would be.
    let again = version(&store, "shop", 2);
    assert!(store.deploy(again).await.unwrap().dropped.is_empty());
    assert_eq!(store.revisions(&shop).unwrap()[0].digest, digests[2]);
    store.deploy(version(&store, "shop", 20)).await.unwrap();
    assert_eq!(store.rollback_target(&shop, None).unwrap().digest, digests[2]);
    assert_eq!(store.check().unwrap(), []);
}

#[tokio::test]
async fn the_current_revision_stays_whatever_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&StoreConfig { revisions_kept: 1, ..StoreConfig::new(dir.path()) }).unwrap();
    for n in 0..3 {
        store.deploy(version(&store, "shop", n)).await.unwrap();
        assert_eq!(store.revisions(&name("shop")).unwrap().len(), 1);
        assert!(matches!(store.rollback_target(&name("shop"), None), Err(StoreError::NothingEarlier(_))));
    }
}

#[tokio::test]
async fn a_deploy_that_is_refused_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    store.deploy(version(&store, "shop", 1)).await.unwrap();
    let before = store.app(&name("shop")).unwrap();

    let missing = Digest::of(b"never uploaded");
    let new = version(&store, "shop", 2);
    let with_missing = Deployment { components: [(name("own"), missing)].into(), ..new.clone() };
    let error = store.deploy(with_missing).await.unwrap_err();
    assert!(matches!(&error, StoreError::MissingBlob { digest, .. } if *digest == missing), "{error}");
    assert_eq!(Failure::from(error).kind(), Kind::Invalid);

    let other_content = Deployment { revision: before.current.digest, ..new };
    assert!(matches!(store.deploy(other_content).await, Err(StoreError::OtherContent { .. })));
    assert_eq!(store.app(&name("shop")).unwrap(), before);
    assert_eq!(store.generation().unwrap(), before.generation);
}

#[tokio::test]
async fn removing_an_app_takes_its_secrets_and_lets_its_blobs_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    for app in ["shop", "other"] {
        store.deploy(version(&store, app, 1)).await.unwrap();
        store.set_secret(&name(app), "key", "value".into(), NOW).await.unwrap();
    }
    let removed = store.remove(&name("shop")).await.unwrap();
    assert_eq!((removed.generation, removed.revisions, removed.secrets), (3, 1, 1));
    assert!(matches!(store.remove(&name("shop")).await, Err(StoreError::NoApp(_))));
    assert_eq!(store.apps().unwrap().len(), 1);
    assert!(store.secret_names(&name("shop")).unwrap().is_empty());
    assert_eq!(store.secrets(&name("other")).unwrap().len(), 1);

    assert_eq!(store.collect_blobs(Duration::from_secs(60)).unwrap().blobs, 0, "they are young");
    let collected = store.collect_blobs(Duration::ZERO).unwrap();
    assert_eq!((collected.blobs, collected.bytes), (1, "component 1 of shop".len() as u64));
    assert_eq!(store.check().unwrap(), [], "what the other app needs is there");
}

#[tokio::test]
async fn what_was_let_go_has_its_time_of_grace() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&StoreConfig { revisions_kept: 1, ..StoreConfig::new(dir.path()) }).unwrap();
    let age = |digest: &Digest| {
        let file = store.blobs().open_file(digest).unwrap();
        file.set_modified(std::time::SystemTime::now() - 2 * HOUR).unwrap();
    };
    let (first, second) = (version(&store, "shop", 1), version(&store, "shop", 2));
    let own = first.components["own"];
    store.deploy(first).await.unwrap();
    age(&own);
    // Requests may still be running on the revision that this one displaces.
    let last = second.components["own"];
    store.deploy(second).await.unwrap();
    assert_eq!(store.collect_blobs(HOUR).unwrap().blobs, 0);
    age(&own);
    assert_eq!(store.collect_blobs(HOUR).unwrap().blobs, 1);
    assert!(!store.blobs().has(&own));
    age(&last);
    store.remove(&name("shop")).await.unwrap();
    assert_eq!(store.collect_blobs(HOUR).unwrap().blobs, 0);
    assert_eq!(store.collect_blobs(Duration::ZERO).unwrap().blobs, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn collecting_beside_uploads_and_deploys_takes_nothing_that_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(open(&dir));
    let done = std::sync::atomic::AtomicBool::new(false);
    let collected = std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut collected = 0;
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                collected += store.collect_blobs(Duration::ZERO).unwrap().blobs;
            }
            collected
        });
        let deployers: Vec<_> = ["a", "b", "c"]
            .map(|app| {
                let store = &store;
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    for n in 0..60 {
                        let pin = put(store, format!("{app} {n}").as_bytes());
                        let shared = put(store, b"shared by all");
                        let manifest = format!("{app} {n}");
                        let new = Deployment {
                            app: name(app),
                            revision: Digest::of(manifest.as_bytes()),
                            manifest,
                            components: [(name("own"), pin.digest()), (name("shared"), shared.digest())].into(),
                            kinds: Default::default(),
                            at_unix_ns: NOW,
                        };
                        runtime.block_on(store.deploy(new)).unwrap();
                    }
                })
            })
            .into_iter()
            .collect();
        for deployer in deployers {
            deployer.join().unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        collector.join().unwrap()
    });
    assert!(collected > 0, "nothing was ever collected: this test has shown nothing");
    assert_eq!(store.check().unwrap(), []);
}

#[test]
fn blobs_are_whole_or_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let blobs = store.blobs();
    let digest = Digest::of(b"content");

    let mut half = blobs.upload(100).unwrap();
    half.write(b"cont").unwrap();
    assert!(!blobs.has(&digest));
    let wrong = half.finish(Some(digest)).unwrap_err();
    assert!(matches!(wrong, StoreError::WrongDigest { .. }), "{wrong}");
    assert!(matches!(blobs.put(&b"content"[..], 6, None), Err(StoreError::BlobTooLarge(6))));
    assert_eq!(blobs.list().unwrap(), []);
    assert_eq!(std::fs::read_dir(dir.path().join("blobs/uploads")).unwrap().count(), 0, "nothing is left behind");

    let pin = blobs.put(&b"content"[..], 7, Some(digest)).unwrap();
    assert_eq!(blobs.read(&digest).unwrap(), b"content");
    assert!(blobs.path(&digest).ends_with(format!("sha256/{}/{}", &digest.hex()[..2], digest.hex())));
    assert!(blobs.remove(&digest).is_err(), "it is pinned");
    drop(pin);

    // Altered on the disk: seen when it is read, and by the doctor's check of a directory.
    std::fs::write(blobs.path(&digest), b"contend").unwrap();
    assert!(matches!(blobs.read(&digest), Err(StoreError::WrongDigest { .. })));
    assert!(blobs.remove(&digest).unwrap());
    assert!(!blobs.remove(&digest).unwrap());
    assert!(matches!(blobs.read(&digest), Err(StoreError::NoBlob(_))));
    assert!(blobs.pin(digest).unwrap().is_none());
}

#[tokio::test]
async fn the_doctor_finds_what_is_missing_or_altered() {
    let dir = tempfile::tempdir().unwrap();
    assert!(check_state_dir(dir.path()).is_err(), "an empty folder is not a state directory");
    let store = open(&dir);
    let new = version(&store, "shop", 1);
    let (own, shared) = (new.components["own"], new.components["shared"]);
    store.deploy(new).await.unwrap();
    store.set_secret(&name("shop"), "key", "value".into(), NOW).await.unwrap();
    assert_eq!(check_state_dir(dir.path()).unwrap(), [], "also while the node runs");
    std::fs::write(store.blobs().path(&own), b"other").unwrap();
    std::fs::remove_file(store.blobs().path(&shared)).unwrap();
    drop(store);
    let key = dir.path().join("secret.key");
    std::fs::write(&key, [7; 32]).unwrap();
    let mut expected = vec![
        Finding::BlobDamaged(own),
        Finding::BlobMissing(shared),
        Finding::SecretUnsealable { app: "shop".into(), name: "key".into() },
    ];
    let mut found = check_state_dir(dir.path()).unwrap();
    let order = |finding: &Finding| finding.to_string();
    expected.sort_by_key(order);
    found.sort_by_key(order);
    assert_eq!(found, expected);
}

#[test]
fn one_process_a_state_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let error = Store::open(&StoreConfig::new(dir.path())).unwrap_err();
    assert!(matches!(&error, StoreError::InUse { pid, .. } if *pid == Some(std::process::id())), "{error}");
    assert!(error.to_string().contains("is in use by another process"), "{error}");
    drop(store);
    open(&dir);
}

mod laws {
    use std::collections::{BTreeMap, VecDeque};

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Deploy(usize, u64),
        RollBack(usize),
        Remove(usize),
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..2usize, 0..6u64).prop_map(|(app, version)| Step::Deploy(app, version)),
            2 => (0..2usize).prop_map(Step::RollBack),
            1 => (0..2usize).prop_map(Step::Remove),
            1 => Just(Step::Restart),
        ]
    }

    /// What the store should hold: revisions by age, latest first, and which one is current.
    #[derive(Default)]
    struct Model {
        revisions: VecDeque<Digest>,
        current: Option<Digest>,
    }

    const KEPT: usize = 3;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn the_store_is_a_list_of_revisions_and_a_pointer(steps in prop::collection::vec(step(), 1..30)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let dir = tempfile::tempdir().unwrap();
            let config = StoreConfig { revisions_kept: KEPT, ..StoreConfig::new(dir.path()) };
            let mut store = Store::open(&config).unwrap();
            let apps = ["a", "b"];
            let mut models: BTreeMap<usize, Model> = (0..2).map(|app| (app, Model::default())).collect();
            for step in steps {
                match step {
                    Step::Deploy(app, n) => {
                        let new = version(&store, apps[app], n);
                        let model = models.get_mut(&app).unwrap();
                        model.revisions.retain(|digest| *digest != new.revision);
                        model.revisions.push_front(new.revision);
                        model.revisions.truncate(KEPT);
                        model.current = Some(new.revision);
                        runtime.block_on(store.deploy(new)).unwrap();
                    }
                    Step::RollBack(app) => {
                        let model = models.get_mut(&app).unwrap();
                        let place = model.revisions.iter().position(|digest| Some(*digest) == model.current);
                        let expected = place.and_then(|place| model.revisions.get(place + 1)).copied();
                        let target = store.rollback_target(&name(apps[app]), None).ok().map(|target| target.digest);
                        prop_assert_eq!(target, expected);
                        if let Some(target) = target {
                            runtime.block_on(store.activate(&name(apps[app]), target)).unwrap();
                            model.current = Some(target);
                        }
                    }
                    Step::Remove(app) => {
                        let removed = runtime.block_on(store.remove(&name(apps[app]))).is_ok();
                        let model = models.get_mut(&app).unwrap();
                        prop_assert_eq!(removed, model.current.is_some());
                        *model = Model::default();
                    }
                    Step::Restart => {
                        drop(store);
                        store = Store::open(&config).unwrap();
                    }
                }
                store.collect_blobs(Duration::ZERO).unwrap();
                for (app, model) in &models {
                    let current = store.app(&name(apps[*app])).ok().map(|app| app.current.digest);
                    prop_assert_eq!(current, model.current);
                    let kept: Vec<_> = store.revisions(&name(apps[*app])).unwrap_or_default();
                    let kept: Vec<_> = kept.iter().map(|revision| revision.digest).collect();
                    prop_assert_eq!(&kept, &Vec::from(model.revisions.clone()));
                }
            }
            prop_assert_eq!(store.check().unwrap(), vec![]);
        }
    }
}
