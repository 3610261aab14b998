//! Which parameters of a query belong to which operation. s3s looks for those that it knows, and takes everything else for a plain
//! PUT, GET or DELETE: a client that wants to rename, annotate or lock an object would replace or remove it.

use http::{Method, Uri};
use s3s::{S3Result, s3_error};

use crate::query;

/// A way to ask for an operation: the parameters that make it this one, and those that it may have.
struct Way {
    needs: &'static [&'static str],
    takes: &'static [&'static str],
}

/// What the path of a request names.
#[derive(Clone, Copy)]
enum Target {
    Root,
    Bucket,
    Object,
}

const PLAIN: Way = Way { needs: &[], takes: &[] };
const UPLOAD: Way = Way { needs: &["uploadId"], takes: &[] };
const READ: Way = Way {
    needs: &[],
    takes: &[
        "partNumber",
        "response-cache-control",
        "response-content-disposition",
        "response-content-encoding",
        "response-content-language",
        "response-content-type",
        "response-expires",
        "versionId",
    ],
};

const LIST_BUCKETS: &[Way] =
    &[Way { needs: &[], takes: &["bucket-region", "continuation-token", "max-buckets", "prefix"] }];
const CREATE_OR_DELETE_BUCKET: &[Way] = &[PLAIN];
const READ_BUCKET: &[Way] = &[
    Way { needs: &[], takes: &["delimiter", "encoding-type", "marker", "max-keys", "prefix"] },
    Way {
        needs: &["list-type"],
        // MinIO's clients ask for `metadata`, and take a list without it, which is what AWS sends.
        takes: &[
            "continuation-token",
            "delimiter",
            "encoding-type",
            "fetch-owner",
            "max-keys",
            "metadata",
            "prefix",
            "start-after",
        ],
    },
    Way { needs: &["location"], takes: &[] },
    Way {
        needs: &["uploads"],
        takes: &["delimiter", "encoding-type", "key-marker", "max-uploads", "prefix", "upload-id-marker"],
    },
];
const POST_BUCKET: &[Way] = &[Way { needs: &["delete"], takes: &[] }];
const HEAD_OBJECT: &[Way] = &[READ];
const GET_OBJECT: &[Way] =
    &[READ, Way { needs: &["uploadId"], takes: &["encoding-type", "max-parts", "part-number-marker"] }];
const PUT_OBJECT: &[Way] = &[PLAIN, Way { needs: &["partNumber", "uploadId"], takes: &[] }];
const POST_OBJECT: &[Way] = &[Way { needs: &["uploads"], takes: &[] }, UPLOAD];
const DELETE_OBJECT: &[Way] = &[Way { needs: &[], takes: &["versionId"] }, UPLOAD];

/// Refuses a request with a parameter that no operation of this node has, or that another one has than this would be.
pub(crate) fn check(method: &Method, uri: &Uri) -> S3Result<()> {
    let pairs = query::pairs(uri);
    let is_version_2 = pairs.iter().any(|(name, _)| name == "Signature");
    let asked: Vec<_> =
        pairs.iter().map(|(name, _)| name.as_str()).filter(|name| !is_of_any(name, is_version_2)).collect();
    let ways = ways(method, target(uri));
    let known = |way: &Way| asked.iter().all(|name| way.has(name));
    if let Some(first) = asked.first()
        && !ways.iter().any(|way| way.is_asked_for(&asked) && known(way))
    {
        // The one that is wrong, rather than one beside it.
        let wrong = asked.iter().find(|name| !ways.iter().any(|way| way.has(name))).unwrap_or(first);
        return Err(s3_error!(
            NotImplemented,
            "this node has no operation that is {method} with \"{wrong}\" and the parameters beside it: leave it out"
        ));
    }
    // s3s takes none of two, and what they ask for would be left out.
    if let Some(twice) = asked.iter().enumerate().find_map(|(at, name)| asked[..at].contains(name).then_some(name)) {
        return Err(s3_error!(InvalidArgument, "\"{twice}\" comes twice in the query: send it once"));
    }
    let is_other_list = |(name, value): &(String, String)| name == "list-type" && value != "2";
    if pairs.iter().any(is_other_list) {
        return Err(s3_error!(InvalidArgument, "\"list-type\" has to be 2, or to be left out"));
    }
    Ok(())
}

/// What says nothing of the operation: the SDK's own name for it, headers that were moved there, and signatures.
fn is_of_any(name: &str, is_version_2: bool) -> bool {
    const OF_VERSION_2: [&str; 5] = ["AWSAccessKeyId", "Expires", "Signature", "content-md5", "content-type"];
    let is_header = name.get(..6).is_some_and(|begin| begin.eq_ignore_ascii_case("x-amz-"));
    name == "x-id" || is_header || is_version_2 && OF_VERSION_2.contains(&name)
}

fn target(uri: &Uri) -> Target {
    let path = uri.path().strip_prefix('/').unwrap_or_default();
    match path.split_once('/') {
        None if path.is_empty() => Target::Root,
        None | Some((_, "")) => Target::Bucket,
        Some(_) => Target::Object,
    }
}

/// The ways to ask for something; none where there is no operation, which s3s says.
fn ways(method: &Method, target: Target) -> &'static [Way] {
    match (method.as_str(), target) {
        ("GET", Target::Root) => LIST_BUCKETS,
        ("GET", Target::Bucket) => READ_BUCKET,
        ("PUT" | "DELETE" | "HEAD", Target::Bucket) => CREATE_OR_DELETE_BUCKET,
        ("POST", Target::Bucket) => POST_BUCKET,
        ("GET", Target::Object) => GET_OBJECT,
        ("HEAD", Target::Object) => HEAD_OBJECT,
        ("PUT", Target::Object) => PUT_OBJECT,
        ("POST", Target::Object) => POST_OBJECT,
        ("DELETE", Target::Object) => DELETE_OBJECT,
        _ => &[],
    }
}

impl Way {
    fn has(&self, name: &str) -> bool {
        self.needs.contains(&name) || self.takes.contains(&name)
    }

    fn is_asked_for(&self, asked: &[&str]) -> bool {
        self.needs.iter().all(|name| asked.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code of the refusal, or nothing.
    fn code(method: &Method, target: &str) -> String {
        let uri = target.parse().expect("a target");
        check(method, &uri).map_or_else(|error| error.code().as_str().to_owned(), |()| String::new())
    }

    #[test]
    fn an_operation_takes_its_own_parameters_and_no_others() {
        let (get, put, post, delete, head) = (Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::HEAD);
        for (method, target) in [
            (&get, "/"),
            (&get, "/?prefix=a&max-buckets=3&x-id=ListBuckets"),
            (&get, "/b?location"),
            (&get, "/b/?prefix=a&delimiter=/&encoding-type=url&marker=x&max-keys=7"),
            (&get, "/b?list-type=2&prefix=&continuation-token=x&start-after=a&fetch-owner=true&metadata=true"),
            (&get, "/b?uploads&prefix=a&key-marker=b&upload-id-marker=c&max-uploads=3"),
            (&head, "/b"),
            (&put, "/b"),
            (&post, "/b?delete&x-id=DeleteObjects"),
            (&delete, "/b/"),
            (&get, "/b/k?versionId=null&partNumber=1&response-content-type=a&response-expires=b"),
            (&get, "/b/k?uploadId=u&max-parts=3&part-number-marker=2"),
            (&head, "/b/k?response-cache-control=a"),
            (&put, "/b/k?x-id=PutObject"),
            (&put, "/b/k?X-Amz-Signature=0&X-Amz-Expires=5&x-amz-meta-a=b&X-AMZ-Meta-C=d"),
            (&put, "/b/k?AWSAccessKeyId=k&Expires=1&Signature=s&content-type=a&content-md5=b"),
            (&put, "/b/k?partNumber=1&uploadId=u&x-id=UploadPart"),
            (&post, "/b/k?uploads="),
            (&post, "/b/k?uploadId=u"),
            (&delete, "/b/k?versionId=null"),
            (&delete, "/b/k?uploadId=u"),
            (&Method::PATCH, "/b/k"),
        ] {
            assert_eq!(code(method, target), "", "{method} {target}");
        }
        for target in ["uploadId=u", "partNumber=1", "append&position=8", "versionId=null", "foo", "renameObject"]
            .into_iter()
            .chain(["annotation", "uploads", "ACL", "%61cl", "partNumber=1&uploadId=u&acl", "Expires=1", "prefix=a"])
        {
            assert_eq!(code(&put, &format!("/b/k?{target}")), "NotImplemented", "PUT {target}");
        }
        for target in ["acl", "uploads", "retention", "partNumber=1", "partNumber=1&uploadId=u", "versionId=1&foo"] {
            assert_eq!(code(&delete, &format!("/b/k?{target}")), "NotImplemented", "DELETE {target}");
        }
        for target in ["versioning", "uploads", "acl", "object-lock", "metadataConfiguration", "foo", "location"] {
            for method in [&put, &delete, &head] {
                assert_eq!(code(method, &format!("/b?{target}")), "NotImplemented", "{method} {target}");
            }
        }
        for (method, target) in [
            (&get, "/?foo"),
            (&get, "/b?abac"),
            (&get, "/b?start-after=x"),
            (&get, "/b?list-type=2&marker=x"),
            (&get, "/b?location&uploads"),
            (&get, "/b/k?annotation=x"),
            (&head, "/b/k?uploadId=u"),
            (&post, "/b?delete&versioning"),
            (&post, "/b/k?uploads&uploadId=u"),
            (&post, "/b/k?foo"),
        ] {
            assert_eq!(code(method, target), "NotImplemented", "{method} {target}");
        }
    }

    #[test]
    fn a_parameter_comes_once() {
        for target in ["/b/k?versionId=null&versionId=1", "/b/k?uploadId=u&uploadId=v"] {
            assert_eq!(code(&Method::DELETE, target), "InvalidArgument", "{target}");
        }
        assert_eq!(code(&Method::GET, "/b?prefix=a&prefix=b"), "InvalidArgument");
        assert_eq!(code(&Method::GET, "/b?list-type=3"), "InvalidArgument");
        assert_eq!(code(&Method::PUT, "/b/k?x-amz-meta-a=1&x-amz-meta-a=2"), "");
    }
}
