"""Keys from passwords. CPython takes that from OpenSSL, which is not there: here it is in Python, some ten times slower."""

import hmac


def pbkdf2_hmac(hash_name, password, salt, iterations, dklen=None):
    """`hashlib.pbkdf2_hmac`: RFC 8018 §5.2."""
    if iterations < 1 or (dklen is not None and dklen < 1):
        raise ValueError("iterations and dklen are 1 or more")
    password, salt = bytes(password), bytes(salt)
    size = hmac.new(password, digestmod=hash_name).digest_size
    length = size if dklen is None else dklen
    derived = b""
    while len(derived) < length:
        last = hmac.digest(password, salt + (len(derived) // size + 1).to_bytes(4), hash_name)
        mixed = int.from_bytes(last)
        for _ in range(iterations - 1):
            last = hmac.digest(password, last, hash_name)
            mixed ^= int.from_bytes(last)
        derived += mixed.to_bytes(size)
    return derived[:length]
