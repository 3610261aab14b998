"""boto3 against a node: ENDPOINT ID SECRET [CA]. With CA, a file, ENDPOINT is https. Prints `ok` at the end; whatever does not
hold is an AssertionError."""

import base64
import datetime
import hashlib
import http.client
import io
import os
import ssl
import sys
import urllib.parse
import urllib.request
import zlib

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.client import Config
from botocore.exceptions import ClientError

endpoint, key_id, secret = sys.argv[1:4]
ca = sys.argv[4] if len(sys.argv) > 4 else None
host = urllib.parse.urlsplit(endpoint)
tls = ssl.create_default_context(cafile=ca) if ca else None
assert (host.scheme == "https") == bool(tls), "CA is for https, and https needs one"
# What each request that was sent says of its trailer.
trailers = []


def note(request, **_):
    name = request.headers.get("X-Amz-Trailer")
    trailers.append(name.decode() if isinstance(name, bytes) else name)


def client(id=key_id, secret=secret, region="us-east-1", **config):
    made = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id=id, aws_secret_access_key=secret, region_name=region, verify=ca,
        config=Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}, **config),
    )
    made.meta.events.register("before-send.s3", note)
    return made


def connect():
    """A connection to send on what boto3 would not."""
    if tls:
        return http.client.HTTPSConnection(host.hostname, host.port, context=tls)
    return http.client.HTTPConnection(host.hostname, host.port)


def trailed(algorithm, call, *arguments, bodies=1, **named):
    """What the call gives. Over TLS the checksum of each of its bodies comes in a trailer; in clear text botocore sends none."""
    trailers.clear()
    answer = call(*arguments, **named)
    sent = [name for name in trailers if name]
    assert sent == ["x-amz-checksum-" + algorithm.lower()] * (bodies if tls else 0), (algorithm, trailers)
    return answer


s3 = client()


def refused(code, status, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        found = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        assert found == (code, status), (found, code, status)
        assert error.response["Error"].get("Message"), found
    else:
        raise AssertionError(f"{call} was not refused with {code}")


def buckets():
    s3.create_bucket(Bucket="uploads")
    refused("BucketAlreadyOwnedByYou", 409, s3.create_bucket, Bucket="uploads")
    s3.create_bucket(Bucket="second")
    assert [b["Name"] for b in s3.list_buckets()["Buckets"]] == ["second", "uploads"]
    assert s3.head_bucket(Bucket="uploads")["ResponseMetadata"]["HTTPStatusCode"] == 200
    refused("404", 404, s3.head_bucket, Bucket="nothing")
    assert s3.get_bucket_location(Bucket="uploads")["LocationConstraint"] is None
    refused("NoSuchBucket", 404, s3.put_object, Bucket="nothing", Key="k", Body=b"1")
    refused("NoSuchBucket", 404, s3.list_objects_v2, Bucket="nothing")


def one_object():
    put = trailed(
        "CRC32", s3.put_object, Bucket="uploads", Key="a/b c+ä.txt", Body=b"hello", ContentType="text/plain; charset=utf-8",
        CacheControl="max-age=60", ContentDisposition='attachment; filename="x"', ContentLanguage="de",
        ContentEncoding="identity", Expires=datetime.datetime(2030, 1, 2, tzinfo=datetime.timezone.utc),
        Metadata={"taken-by": "me", "number": "7"},
    )
    assert put["ETag"] == '"5d41402abc4b2a76b9719d911017c592"'
    crc = base64.b64encode(zlib.crc32(b"hello").to_bytes(4, "big")).decode()
    assert put["ChecksumCRC32"] == crc, put  # boto3's default
    got = s3.get_object(Bucket="uploads", Key="a/b c+ä.txt")
    assert got["Body"].read() == b"hello"
    assert got["ChecksumCRC32"] == crc and got["ContentLength"] == 5 and got["AcceptRanges"] == "bytes"
    for name, value in {
        "ContentType": "text/plain; charset=utf-8", "CacheControl": "max-age=60", "ContentLanguage": "de",
        "ContentDisposition": 'attachment; filename="x"', "ContentEncoding": "identity",
        "Metadata": {"taken-by": "me", "number": "7"},
    }.items():
        assert got[name] == value, (name, got[name])
    assert got["Expires"].year == 2030
    age = datetime.datetime.now(datetime.timezone.utc) - got["LastModified"]
    assert abs(age.total_seconds()) < 60
    head = s3.head_object(Bucket="uploads", Key="a/b c+ä.txt")
    assert head["ETag"] == put["ETag"] and head["ContentLength"] == 5
    refused("404", 404, s3.head_object, Bucket="uploads", Key="none")
    refused("NoSuchKey", 404, s3.get_object, Bucket="uploads", Key="none")
    s3.put_object(Bucket="uploads", Key="empty", Body=b"")
    assert s3.get_object(Bucket="uploads", Key="empty")["Body"].read() == b""
    assert s3.get_object(Bucket="uploads", Key="empty")["ContentType"] == "binary/octet-stream"


def ranges():
    content = os.urandom(700_000)
    s3.put_object(Bucket="uploads", Key="range", Body=content)
    for header, want in {
        "bytes=0-0": content[:1], "bytes=5-99": content[5:100], "bytes=699999-": content[-1:],
        "bytes=-10": content[-10:], "bytes=300000-9999999": content[300000:], "bytes=-9999999": content,
    }.items():
        got = s3.get_object(Bucket="uploads", Key="range", Range=header)
        assert got["Body"].read() == want, header
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
        assert got["ContentRange"].endswith("/700000")
    refused("InvalidRange", 416, s3.get_object, Bucket="uploads", Key="range", Range="bytes=700000-")
    head = s3.head_object(Bucket="uploads", Key="range", Range="bytes=0-0")
    assert head["ContentLength"] == 700_000 and "ContentRange" not in head, "a range is for a GET"


def conditions():
    etag = s3.put_object(Bucket="uploads", Key="c", Body=b"1")["ETag"]
    get = dict(Bucket="uploads", Key="c")
    assert s3.get_object(**get, IfMatch=etag)["Body"].read() == b"1"
    refused("PreconditionFailed", 412, s3.get_object, **get, IfMatch='"x"')
    refused("304", 304, s3.get_object, **get, IfNoneMatch=etag)
    hour = datetime.timedelta(hours=1)
    now = datetime.datetime.now(datetime.timezone.utc)
    refused("304", 304, s3.get_object, **get, IfModifiedSince=now + hour)
    refused("304", 304, s3.head_object, **get, IfModifiedSince=now + hour)
    refused("PreconditionFailed", 412, s3.get_object, **get, IfUnmodifiedSince=now - hour)
    assert s3.get_object(**get, IfModifiedSince=now - hour)["Body"].read() == b"1"
    refused("PreconditionFailed", 412, s3.put_object, **get, Body=b"2", IfNoneMatch="*")
    s3.put_object(Bucket="uploads", Key="new", Body=b"1", IfNoneMatch="*")
    refused("PreconditionFailed", 412, s3.put_object, **get, Body=b"2", IfMatch='"x"')
    refused("NoSuchKey", 404, s3.put_object, Bucket="uploads", Key="gone", Body=b"2", IfMatch=etag)
    s3.put_object(**get, Body=b"2", IfMatch=etag)
    assert s3.get_object(**get)["Body"].read() == b"2"


def checksums():
    known = {
        "CRC32": zlib.crc32(b"abc").to_bytes(4, "big"), "SHA1": hashlib.sha1(b"abc").digest(), "SHA256": hashlib.sha256(b"abc").digest(),
    }
    for algorithm in ["CRC32", "CRC32C", "SHA1", "SHA256", "CRC64NVME"]:
        try:
            put = trailed(algorithm, s3.put_object, Bucket="uploads", Key=algorithm, Body=b"abc", ChecksumAlgorithm=algorithm)
        except Exception as error:  # CRC32C and CRC64NVME need the optional awscrt
            assert "MissingDependency" in type(error).__name__, error
            continue
        head = s3.head_object(Bucket="uploads", Key=algorithm, ChecksumMode="ENABLED")
        want = base64.b64encode(known[algorithm]).decode() if algorithm in known else put["Checksum" + algorithm]
        assert (put["Checksum" + algorithm], head["Checksum" + algorithm]) == (want, want), algorithm
        assert "ContentEncoding" not in head, "that of the way is not that of the content"
        assert s3.get_object(Bucket="uploads", Key=algorithm)["Body"].read() == b"abc"
    # Known values, without boto3 computing them (RFC 3720 §B.4 for CRC32C of 32 zero bytes).
    s3.put_object(Bucket="uploads", Key="crc32c", Body=bytes(32), ChecksumCRC32C="ipE2qg==")
    refused("BadDigest", 400, s3.put_object, Bucket="uploads", Key="bad", Body=b"abc", ChecksumCRC32C="ipE2qg==")
    refused("BadDigest", 400, s3.put_object, Bucket="uploads", Key="bad", Body=b"abc", ChecksumSHA256="AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
    wrong = base64.b64encode(hashlib.md5(b"x").digest()).decode()
    refused("BadDigest", 400, s3.put_object, Bucket="uploads", Key="bad", Body=b"abc", ContentMD5=wrong)
    refused("404", 404, s3.head_object, Bucket="uploads", Key="bad")
    # A body that cannot be read twice.
    class Unseekable(io.RawIOBase):
        def __init__(self, data): self.data = io.BytesIO(data)
        def read(self, n=-1): return self.data.read(n)
        def readable(self): return True
    content = os.urandom(300_000)
    trailed("CRC32", s3.upload_fileobj, Unseekable(content), "uploads", "stream")
    got = s3.get_object(Bucket="uploads", Key="stream")
    assert got["Body"].read() == content and got["ContentLength"] == len(content)
    assert got["ChecksumCRC32"] == base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()


def multipart():
    content = os.urandom(20 << 20)
    config = TransferConfig(multipart_threshold=8 << 20, multipart_chunksize=8 << 20, max_concurrency=4)
    more = {"Config": config, "ExtraArgs": {"Metadata": {"a": "b"}}}
    trailed("CRC32", s3.upload_fileobj, io.BytesIO(content), "uploads", "large", bodies=3, **more)
    head = s3.head_object(Bucket="uploads", Key="large", ChecksumMode="ENABLED")
    assert head["ContentLength"] == 20 << 20 and head["ETag"].endswith('-3"') and head["Metadata"] == {"a": "b"}
    assert head.get("ChecksumCRC32", "-3").endswith("-3") or head["ChecksumType"] == "FULL_OBJECT", head
    back = io.BytesIO()
    s3.download_fileobj("uploads", "large", back, Config=config)
    assert back.getvalue() == content
    part = s3.get_object(Bucket="uploads", Key="large", Range="bytes=8388600-8388620")
    assert part["Body"].read() == content[8388600:8388621]

    upload = s3.create_multipart_upload(Bucket="uploads", Key="m")["UploadId"]
    one = trailed("CRC32", s3.upload_part, Bucket="uploads", Key="m", UploadId=upload, PartNumber=1, Body=b"one")
    copied = s3.upload_part_copy(Bucket="uploads", Key="m", UploadId=upload, PartNumber=7, CopySource="uploads/large", CopySourceRange="bytes=5-9")
    listed = s3.list_parts(Bucket="uploads", Key="m", UploadId=upload)["Parts"]
    assert [(part["PartNumber"], part["Size"]) for part in listed] == [(1, 3), (7, 5)]
    uploads = s3.list_multipart_uploads(Bucket="uploads")["Uploads"]
    assert [(u["Key"], u["UploadId"]) for u in uploads] == [("m", upload)]
    complete = lambda parts, id=upload: s3.complete_multipart_upload(Bucket="uploads", Key="m", UploadId=id, MultipartUpload={"Parts": parts})
    named = lambda number, etag: {"PartNumber": number, "ETag": etag}
    seven = named(7, copied["CopyPartResult"]["ETag"])
    refused("InvalidPart", 400, complete, parts=[named(1, one["ETag"]), named(2, '"x"')])
    refused("InvalidPartOrder", 400, complete, parts=[seven, named(1, one["ETag"])])
    made = complete([named(1, one["ETag"]), seven])
    # Whoever has lost the answer asks again.
    again = complete([named(1, one["ETag"]), seven])
    assert (again["ETag"], again["Key"]) == (made["ETag"], "m"), (made, again)
    assert s3.get_object(Bucket="uploads", Key="m")["Body"].read() == b"one" + content[5:10]
    refused("NoSuchUpload", 404, complete, parts=[seven])
    upload = s3.create_multipart_upload(Bucket="uploads", Key="m2")["UploadId"]
    s3.upload_part(Bucket="uploads", Key="m2", UploadId=upload, PartNumber=1, Body=b"one")
    s3.abort_multipart_upload(Bucket="uploads", Key="m2", UploadId=upload)
    refused("NoSuchUpload", 404, s3.list_parts, Bucket="uploads", Key="m2", UploadId=upload)
    refused("404", 404, s3.head_object, Bucket="uploads", Key="m2")


def copies():
    s3.put_object(Bucket="uploads", Key="from ü", Body=b"copy me", ContentType="text/a", Metadata={"x": "1"})
    s3.copy_object(Bucket="second", Key="to", CopySource={"Bucket": "uploads", "Key": "from ü"})
    got = s3.get_object(Bucket="second", Key="to")
    assert (got["Body"].read(), got["ContentType"], got["Metadata"]) == (b"copy me", "text/a", {"x": "1"})
    s3.copy_object(Bucket="second", Key="to", CopySource="second/to", MetadataDirective="REPLACE", Metadata={"y": "2"}, ContentType="text/b")
    got = s3.head_object(Bucket="second", Key="to")
    assert (got["ContentType"], got["Metadata"]) == ("text/b", {"y": "2"})
    refused("NoSuchKey", 404, s3.copy_object, Bucket="second", Key="to2", CopySource="uploads/none")
    refused("PreconditionFailed", 412, s3.copy_object, Bucket="second", Key="to2", CopySource="second/to", CopySourceIfMatch='"x"')
    refused("BucketNotEmpty", 409, s3.delete_bucket, Bucket="second")
    s3.delete_object(Bucket="second", Key="to")
    s3.delete_object(Bucket="second", Key="to")
    s3.delete_bucket(Bucket="second")
    refused("NoSuchBucket", 404, s3.list_objects_v2, Bucket="second")


def lists():
    s3.create_bucket(Bucket="many")
    names = sorted(f"d{n % 3}/k {n:04}+ä" for n in range(1100)) + ["top"]
    for name in names:
        s3.put_object(Bucket="many", Key=name, Body=b"")
    for version in ["list_objects_v2", "list_objects"]:
        for size in [1000, 7 if version == "list_objects" else 99]:
            pages = s3.get_paginator(version).paginate(Bucket="many", PaginationConfig={"PageSize": size})
            found = [o["Key"] for page in pages for o in page.get("Contents", [])]
            assert found == names, version
        pages = s3.get_paginator(version).paginate(Bucket="many", Delimiter="/", PaginationConfig={"PageSize": 2})
        pages = list(pages)
        assert [p["Prefix"] for page in pages for p in page.get("CommonPrefixes", [])] == ["d0/", "d1/", "d2/"]
        assert [o["Key"] for page in pages for o in page.get("Contents", [])] == ["top"]
    page = s3.list_objects_v2(Bucket="many", Prefix="d1/", StartAfter=names[500], MaxKeys=5)
    assert [o["Key"] for o in page["Contents"]] == [n for n in names if n.startswith("d1/") and n > names[500]][:5]
    assert page["KeyCount"] == 5 and page["IsTruncated"]
    assert s3.list_objects_v2(Bucket="many", MaxKeys=0)["KeyCount"] == 0
    refused("InvalidArgument", 400, s3.list_objects_v2, Bucket="many", ContinuationToken="nonsense")
    gone = [{"Key": name} for name in names[:1000]]
    answer = s3.delete_objects(Bucket="many", Delete={"Objects": gone})
    assert len(answer["Deleted"]) == 1000 and not answer.get("Errors")
    answer = s3.delete_objects(Bucket="many", Delete={"Objects": [{"Key": n} for n in names[1000:]] + [{"Key": "none"}], "Quiet": True})
    assert not answer.get("Deleted") and not answer.get("Errors")
    s3.delete_bucket(Bucket="many")


def by_url(method, url, headers={}, body=None):
    """The status and the body of an answer, without what urllib would say of its own: version 2 signs the media type."""
    parts = urllib.parse.urlsplit(url)
    connection = connect()
    connection.request(method, f"{parts.path}?{parts.query}", body=body, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def presigned():
    for version in ["s3", "s3v4"]:  # the first is what boto3 does by itself
        signing = client(signature_version=version)
        url = signing.generate_presigned_url("put_object", Params={"Bucket": "uploads", "Key": "signed ä/x"}, ExpiresIn=60)
        # Whoever has the URL does not copy with it what the signer may read.
        status, said = by_url("PUT", url, {"x-amz-copy-source": "uploads/c"})
        assert status == 403, (version, said)
        status, said = by_url("PUT", url, body=b"by url " + version.encode())
        assert status == 200, (version, said)
        get = lambda seconds: signing.generate_presigned_url("get_object", Params={"Bucket": "uploads", "Key": "signed ä/x"}, ExpiresIn=seconds)
        url = get(60)
        assert urllib.request.urlopen(url, context=tls).read() == b"by url " + version.encode()
        for bad in [url.replace("uploads", "second"), url.replace("signed", "Signed"), endpoint + "/uploads/c", get(-5)]:
            try:
                urllib.request.urlopen(bad, context=tls)
                raise AssertionError(bad)
            except urllib.error.HTTPError as error:
                assert error.code in (400, 403), (bad, error.code)
                assert b"<Code>" in error.read()
    week = 7 * 24 * 60 * 60
    long = lambda seconds: client(signature_version="s3v4").generate_presigned_url("get_object", Params={"Bucket": "uploads", "Key": "c"}, ExpiresIn=seconds)
    assert by_url("GET", long(week))[0] == 200
    status, said = by_url("GET", long(week + 1))
    assert status == 400 and b"AuthorizationQueryParametersError" in said, said
    # Version 2 signs these two as it would sign one with both in it, and an object would be put instead of a part.
    params = {"Bucket": "uploads", "Key": "part", "UploadId": s3.create_multipart_upload(Bucket="uploads", Key="part")["UploadId"]}
    url = client(signature_version="s3").generate_presigned_url("upload_part", Params={**params, "PartNumber": 1}, ExpiresIn=60)
    pair, one = f"uploadId={params['UploadId']}&partNumber=1", f"partNumber=1%26uploadId={params['UploadId']}"
    assert pair in url, url
    for bad in [url.replace(pair, one), url + "&prefix=x"]:
        status, said = by_url("PUT", bad, body=b"part")
        assert status == 403 and b"AWS4-HMAC-SHA256" in said, (bad, said)
    assert by_url("PUT", url, body=b"part")[0] == 200
    s3.abort_multipart_upload(**params)
    refused("404", 404, s3.head_object, Bucket="uploads", Key="part")


def signatures():
    refused("SignatureDoesNotMatch", 403, client(secret="wrong-wrong-wrong-wrong").list_buckets)
    refused("InvalidAccessKeyId", 403, client(id="nobody").list_buckets)
    # A region is small letters, digits and "-": which one, is all the same.
    for region in ("eu-central-1", "here", "0-a"):
        client(region=region).list_buckets()
    for region in ("US", "Berlin"):
        refused("InvalidRequest", 400, client(region=region).list_buckets)
    unsigned = client(signature_version=__import__("botocore").UNSIGNED)
    refused("AccessDenied", 403, unsigned.list_buckets)
    refused("AccessDenied", 403, unsigned.get_object, Bucket="uploads", Key="c")
    refused("InvalidRequest", 400, client(signature_version="s3").list_buckets)
    # A clock that is an hour off: botocore is told that it is.
    import botocore.auth

    real = botocore.auth.get_current_datetime
    botocore.auth.get_current_datetime = lambda *a, **k: real(*a, **k) - datetime.timedelta(hours=1)
    try:
        refused("RequestTimeTooSkewed", 403, client().list_buckets)
    finally:
        botocore.auth.get_current_datetime = real


def names():
    for name in ["../../etc/passwd", "a/../b", "..", "./x", "//", "a//b", "%2e%2e/%2f", "\\..\\", "x" * 1024, "ü" * 512]:
        s3.put_object(Bucket="uploads", Key=name, Body=name.encode())
        assert s3.get_object(Bucket="uploads", Key=name)["Body"].read() == name.encode(), name
        found = s3.list_objects_v2(Bucket="uploads", Prefix=name)["Contents"]
        assert name in [o["Key"] for o in found], name
        s3.delete_object(Bucket="uploads", Key=name)
    refused("KeyTooLongError", 400, s3.put_object, Bucket="uploads", Key="x" * 1025, Body=b"")
    for name in ["a\0b", "a\nb", "\x85"]:
        refused("InvalidArgument", 400, s3.put_object, Bucket="uploads", Key=name, Body=b"")
    # Straight to the socket, as no client would send it.
    for path in ["/..%2f..%2fetc/passwd", "/uploads/../../node.db", "/%00/x", "/uploads%2f..%2f..", "//", "/UPLOADS/x"]:
        connection = connect()
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status in (400, 403), (path, answer.status)
        connection.close()


def metadata_limit():
    refused("MetadataTooLarge", 400, s3.put_object, Bucket="uploads", Key="k", Body=b"", Metadata={"a": "x" * 9000})


for check in [buckets, one_object, ranges, conditions, checksums, multipart, copies, lists, presigned, signatures, names, metadata_limit]:
    print(check.__name__, flush=True)
    check()
print("ok")
