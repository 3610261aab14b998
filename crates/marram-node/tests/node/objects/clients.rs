//! boto3, in clear text and over TLS, and the AWS CLI. `scripts/s3-clients.sh` installs them; a client that is missing is a failure.

use std::path::{Path, PathBuf};
use std::time::Duration;

use marram_node::{S3Config, S3Tls};
use marram_testkit::TestNode;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use tokio::process::Command;

use super::{SECRET, endpoint, key, start};

const HINT: &str = "run scripts/s3-clients.sh, which installs the clients that these tests need";
const DEADLINE: Duration = Duration::from_secs(300);

/// A program of the folder of clients.
fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("MARRAM_S3_CLIENTS").map_or_else(
        || {
            let test = std::env::current_exe().unwrap();
            // target/release/deps/objects-…
            test.ancestors().nth(3).unwrap().join("s3-clients")
        },
        PathBuf::from,
    );
    let program = folder.join("bin").join(name);
    assert!(program.exists(), "{} is missing: {HINT}", program.display());
    program
}

/// Runs it without anything of this machine's own configuration, and returns what it says.
async fn run(mut command: Command) -> (bool, String) {
    for name in
        ["AWS_PROFILE", "AWS_SESSION_TOKEN", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"]
    {
        command.env_remove(name);
    }
    command.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    command.env("AWS_EC2_METADATA_DISABLED", "true").env("NO_PROXY", "*");
    let output = tokio::time::timeout(DEADLINE, command.kill_on_drop(true).output()).await.expect("it ends").unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

async fn boto3(endpoint: &str, ca: Option<&Path>) {
    let mut command = Command::new(program("python"));
    command.arg("-B").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node/objects/boto.py"));
    command.args([endpoint, "everything", SECRET]).args(ca);
    let (done, said) = run(command).await;
    assert!(done && said.trim_end().ends_with("ok"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_gets_what_it_expects_of_s3() {
    let node = start(vec![key("everything", &["*"], &["*"])]).await;
    boto3(&endpoint(&node), None).await;
    node.stop().await;
}

/// A certificate for this machine in a folder, with its key, and `ca.pem`, the authority that signs it and nothing else.
fn certificate() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "the test's authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    leaf.use_authority_key_identifier_extension = true;
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = leaf.signed_by(&leaf_key, &authority).unwrap();
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    std::fs::write(folder.path().join("cert.pem"), leaf.pem()).unwrap();
    std::fs::write(folder.path().join("key.pem"), leaf_key.serialize_pem()).unwrap();
    folder
}

/// Over TLS boto3 sends the checksum of each body in a trailer, after chunks that are not signed.
#[tokio::test(flavor = "multi_thread")]
async fn boto3_gets_the_same_over_tls_with_checksums_in_trailers() {
    let files = certificate();
    let file = |name| files.path().join(name);
    let node = TestNode::start_with(|config| {
        let listen = "127.0.0.1:0".parse().unwrap();
        let tls = Some(S3Tls { listen, cert: file("cert.pem"), key: file("key.pem") });
        config.s3 = S3Config { tls, keys: vec![key("everything", &["*"], &["*"])], ..S3Config::default() };
    })
    .await;
    let urls = node.node().urls();
    let (_, url) = urls.iter().find(|(name, _)| *name == "s3_tls").unwrap();
    boto3(url, Some(&file("ca.pem"))).await;
    node.stop().await;
}

async fn aws(node: &TestNode, id: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(program("aws"));
    command.args(["--endpoint-url", &endpoint(node), "--region", "us-east-1"]).args(arguments);
    command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", SECRET);
    run(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_aws_cli_copies_and_syncs_over_a_restart() {
    let mut node = start(vec![key("everything", &["*"], &["*"])]).await;
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let content = |n: usize| (0..n).map(|at| (at * 31 % 251) as u8).collect::<Vec<_>>();
    let files = [("a.txt", 5), ("deep/er/b ü.bin", 70_000), ("large.bin", 9 << 20), ("empty", 0)];
    for (name, length) in files {
        let path = from.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content(length)).unwrap();
    }
    let (from_text, to_text) = (from.to_str().unwrap().to_owned(), to.to_str().unwrap().to_owned());
    let good = async |node: &TestNode, arguments: &[&str]| {
        let (done, said) = aws(node, "everything", arguments).await;
        assert!(done, "aws {arguments:?}: {said}");
        said
    };
    good(&node, &["s3", "mb", "s3://photos"]).await;
    good(&node, &["s3", "sync", &from_text, "s3://photos/set"]).await;
    // Everything is there: nothing is sent again.
    assert_eq!(good(&node, &["s3", "sync", &from_text, "s3://photos/set"]).await.trim(), "");
    node = node.restart().await;
    let listed = good(&node, &["s3", "ls", "--recursive", "s3://photos"]).await;
    assert!(listed.contains("set/deep/er/b ü.bin") && listed.lines().count() == files.len(), "{listed}");
    good(&node, &["s3", "sync", "s3://photos/set", &to_text]).await;
    for (name, length) in files {
        assert_eq!(std::fs::read(to.join(name)).unwrap(), content(length), "{name}");
    }
    let one = folder.path().join("one");
    good(&node, &["s3", "cp", "s3://photos/set/large.bin", "s3://photos/copy.bin"]).await;
    good(&node, &["s3", "cp", "s3://photos/copy.bin", one.to_str().unwrap()]).await;
    assert_eq!(std::fs::read(one).unwrap(), content(9 << 20));
    good(&node, &["s3", "rm", "--recursive", "s3://photos"]).await;
    good(&node, &["s3", "rb", "s3://photos"]).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_reaches_its_buckets_and_no_others() {
    let keys = vec![key("everything", &["*"], &["*"]), key("camera", &["shared"], &["uploads"])];
    let node = start(keys).await;
    for bucket in ["s3://uploads", "s3://shared", "s3://private"] {
        let (done, said) = aws(&node, "everything", &["s3", "mb", bucket]).await;
        assert!(done, "{said}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let file = file.path().to_str().unwrap();
    let (done, said) = aws(&node, "camera", &["s3", "cp", file, "s3://uploads/x"]).await;
    assert!(done, "{said}");
    let (done, said) = aws(&node, "everything", &["s3", "cp", file, "s3://private/x"]).await;
    assert!(done, "{said}");
    for refused in [
        vec!["s3", "ls", "s3://uploads"],
        vec!["s3", "ls", "s3://private"],
        vec!["s3", "cp", file, "s3://shared/x"],
        vec!["s3", "cp", "s3://private/x", "s3://uploads/stolen"],
        vec!["s3", "mb", "s3://other"],
        vec!["s3", "rm", "s3://private/x"],
    ] {
        let (done, said) = aws(&node, "camera", &refused).await;
        // A HEAD has no body to say more in.
        assert!(!done && (said.contains("AccessDenied") || said.contains("403")), "{refused:?}: {said}");
    }
    let (done, said) = aws(&node, "camera", &["s3", "ls"]).await;
    assert!(done && said.contains("uploads") && said.contains("shared") && !said.contains("private"), "{said}");
    node.stop().await;
}

/// The path of an URL that lets whoever has it put this object.
pub(crate) async fn presign(node: &TestNode, bucket: &str, name: &str) -> String {
    let script = "import sys, boto3\n\
        from botocore.client import Config\n\
        s3 = boto3.client('s3', endpoint_url=sys.argv[1], aws_access_key_id='everything', aws_secret_access_key=sys.argv[2], \
        region_name='us-east-1', config=Config(signature_version='s3v4', s3={'addressing_style': 'path'}))\n\
        print(s3.generate_presigned_url('put_object', Params={'Bucket': sys.argv[3], 'Key': sys.argv[4]}))";
    let mut command = Command::new(program("python"));
    command.args(["-B", "-c", script, &endpoint(node), SECRET, bucket, name]);
    let (done, said) = run(command).await;
    assert!(done, "{said}");
    said.trim().strip_prefix(&endpoint(node)).unwrap().to_owned()
}

/// The same for a path with a query, in which an SDK has put headers: all of it is signed.
pub(crate) async fn presign_query(node: &TestNode, method: &str, path: &str) -> String {
    let script = "import sys\n\
        from botocore.auth import S3SigV4QueryAuth\n\
        from botocore.awsrequest import AWSRequest\n\
        from botocore.credentials import Credentials\n\
        request = AWSRequest(sys.argv[3], sys.argv[1])\n\
        S3SigV4QueryAuth(Credentials('everything', sys.argv[2]), 's3', 'us-east-1', expires=600).add_auth(request)\n\
        print(request.url)";
    let mut command = Command::new(program("python"));
    command.args(["-B", "-c", script, &format!("{}{path}", endpoint(node)), SECRET, method]);
    let (done, said) = run(command).await;
    assert!(done, "{said}");
    said.trim().strip_prefix(&endpoint(node)).unwrap().to_owned()
}
