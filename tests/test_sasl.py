"""Who a client is: the mechanisms, led by hand."""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode, b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtprecv.sasl import (
    CREDENTIALS_INVALID,
    MALFORMED_RESPONSE,
    MAX_SIZE,
    Claim,
    Exchange,
    External,
    Identity,
    Password,
    SaslError,
    ScramClient,
    ScramKeys,
    ScramStart,
    advance,
    external,
    login,
    mechanisms,
    plain,
    read_name,
    saslprep,
    scram_sha_256,
)

# RFC 7677 section 3
CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
WITHOUT_PROOF = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
PROOF = b"dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
KEYS = ScramKeys.derive("pencil", salt=b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), iterations=4096)

TOO_LARGE = b"x" * (MAX_SIZE + 1)
HOSTILE = ["a\r\nb", "a\nb", "a\0b", "a\x1bb", "a\x7fb", "a\u0085b", "a\u2028b", "a\u202eb", "a\u2066b", "\ue000", ""]
NAMES = st.text(",= aZ9\u00e9e\u0301\u2168\u4e2d\u00ad", min_size=1, max_size=20).filter(saslprep)
NONCES = st.text("!#$%&'()*+-./0123456789:;<=>?@AZaz~", min_size=1, max_size=30)


def play(exchange: Exchange[Claim], *responses: bytes) -> tuple[list[bytes], Claim]:
    """Lead an exchange to its end: the challenges, and the claim."""
    challenges: list[bytes] = []
    step = advance(exchange)
    for response in responses:
        assert isinstance(step, bytes)
        challenges.append(step)
        step = advance(exchange, response)
    assert not isinstance(step, bytes)
    return challenges, step


def begun(client_first: bytes) -> ScramStart:
    """Give what SCRAM knows after the client's first message."""
    _, start = play(scram_sha_256(), client_first)
    assert isinstance(start, ScramStart)
    return start


def client_final(password: str, client_first: bytes, server_first: bytes) -> tuple[bytes, bytes]:
    """Be a SCRAM client (RFC 5802 section 3): give its last message, and the server's that it expects."""
    match = re.fullmatch(rb"r=(?P<nonce>[^,]+),s=(?P<salt>[^,]+),i=(?P<iterations>\d+)", server_first)
    assert match is not None
    flag, authorization, bare = client_first.split(b",", 2)
    salted = hashlib.pbkdf2_hmac(
        "sha256", saslprep(password).encode(), b64decode(match["salt"]), int(match["iterations"])
    )
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    without_proof = b"c=" + b64encode(flag + b"," + authorization + b",") + b",r=" + match["nonce"]
    message = b",".join([bare, server_first, without_proof])
    signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    verifier = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
    return without_proof + b",p=" + b64encode(proof), b"v=" + b64encode(verifier)


def scram_name(name: str) -> bytes:
    """Write a name as SCRAM does."""
    return name.replace("=", "=3D").replace(",", "=2C").encode()


# ---------------------------------------------------------------- PLAIN, LOGIN, EXTERNAL


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (b"\0tim\0tanstaaftanstaaf", Password("tim", "tanstaaftanstaaf")),
        (b"Ursel\0Kurt\0xipj3plmq", Password("Kurt", "xipj3plmq", "Ursel")),
    ],
)
def test_plain(response: bytes, expected: Password) -> None:
    """PLAIN is one response to an empty challenge: whom to act as, the user, the password (RFC 4616 section 2)."""
    assert play(plain(), response) == ([b""], expected)


def test_login() -> None:
    """LOGIN asks for the user and then for the password; nobody can ask to act as another."""
    assert play(login(), b"tim", b"secret") == ([b"Username:", b"Password:"], Password("tim", "secret"))


@pytest.mark.parametrize("authorization", ["", "bob", "z\u00f6e"])
def test_external(authorization: str) -> None:
    """EXTERNAL is one response, empty or whom to act as; the name is what the certificate says."""
    expected = External("mail.example.com", authorization)
    assert play(external("mail.example.com"), authorization.encode()) == ([b""], expected)


@pytest.mark.parametrize(
    "response",
    [
        *[b"", b"tim", b"tim\0x", b"\0tim\0", b"\0\0x", b"\0tim\0x\0", b"a\0b\0c\0d", b"\0t\xffm\0x", b"\0tim\0\xff"],
        *[b"\0" + TOO_LARGE + b"\0x", b"\0u\0" + TOO_LARGE, TOO_LARGE + b"\0u\0x"],
    ],
)
def test_malformed_plain(response: bytes) -> None:
    """A response that is not the grammar's, not UTF-8, or too long ends PLAIN with 501 (RFC 4616 section 2)."""
    fails(plain(), response)


@pytest.mark.parametrize("name", [name for name in HOSTILE if "\0" not in name])
def test_no_hostile_name(name: str) -> None:
    """No mechanism lets a name through that would break a line, steer a terminal, or be nobody's."""
    octets = name.encode()
    fails(plain(), b"\0" + octets + b"\0x")
    fails(login(), octets)
    fails(scram_sha_256(), b"n,,n=" + octets + b",r=x")
    if name:
        fails(plain(), octets + b"\0u\0x")
        fails(external("mail.example.com"), octets)
        fails(scram_sha_256(), b"n,a=" + octets + b",n=u,r=x")


@pytest.mark.parametrize("password", [b"", b"\0", b"a\0b", b"\xff", b"x" * (MAX_SIZE + 1)])
def test_malformed_login(password: bytes) -> None:
    """A password that is none ends LOGIN with 501."""
    exchange = login()
    advance(exchange)
    advance(exchange, b"tim")
    fails_now(exchange, password)


def test_nul_in_a_name() -> None:
    """Where NUL divides nothing, it is in no name."""
    fails(login(), b"a\0b")
    fails(external("mail.example.com"), b"a\0b")
    fails(scram_sha_256(), b"n,,n=a\0b,r=x")


def test_largest() -> None:
    """A name and a password of the largest size are taken."""
    user = password = "x" * MAX_SIZE
    assert play(plain(), f"\0{user}\0{password}".encode())[1] == Password(user, password)


@given(st.binary(), st.sampled_from(sorted(mechanisms("mail.example.com"))))
def test_garbage(response: bytes, mechanism: str) -> None:
    """Whatever the first response is, it leads to a claim, a challenge or a refusal, and to nothing else."""
    exchange = mechanisms("mail.example.com")[mechanism]()
    advance(exchange)
    try:
        found: object = advance(exchange, response)
    except SaslError as error:
        found = error.reply
    assert found == MALFORMED_RESPONSE or isinstance(found, bytes | Password | External | ScramStart)


def fails(exchange: Exchange[Claim], response: bytes) -> None:
    """See that the first response ends the exchange with 501."""
    advance(exchange)
    fails_now(exchange, response)


def fails_now(exchange: Exchange[Claim] | Exchange[Identity], response: bytes) -> None:
    """See that this response ends the exchange with 501."""
    with pytest.raises(SaslError) as caught:
        advance(exchange, response)
    assert caught.value.reply == MALFORMED_RESPONSE


def test_mechanisms() -> None:
    """The best comes first, and EXTERNAL is there only for a client with a certificate."""
    assert list(mechanisms()) == ["SCRAM-SHA-256", "PLAIN", "LOGIN"]
    offered = mechanisms("mail.example.com")
    assert list(offered) == ["EXTERNAL", "SCRAM-SHA-256", "PLAIN", "LOGIN"]
    assert play(offered["EXTERNAL"](), b"") == ([b""], External("mail.example.com"))


# ---------------------------------------------------------------- SCRAM-SHA-256


def test_scram_example() -> None:
    """The exchange of RFC 7677 section 3 goes as it is printed there."""
    start = begun(CLIENT_FIRST)
    assert (start.user, start.authorization) == ("user", "")
    exchange = start.proceed(KEYS, nonce=SERVER_NONCE)
    assert advance(exchange) == SERVER_FIRST
    assert advance(exchange, WITHOUT_PROOF + b",p=" + PROOF) == SERVER_FINAL
    assert advance(exchange, b"") == Identity("user")


@pytest.mark.parametrize(
    ("client_first", "user", "authorization"),
    [
        (b"y,,n=user,r=x", "user", ""),
        (b"n,a=user,n=user,r=x", "user", "user"),
        (b"n,,n=a=2Cb=3Dc,r=x", "a,b=c", ""),
        (b"n,,n=a=3D2Cb,r=x", "a=2Cb", ""),
        (b"n,,n=user,r=x,x=future", "user", ""),
        ("n,,n=\u2168,r=x".encode(), "IX", ""),
    ],
)
def test_client_first(client_first: bytes, user: str, authorization: str) -> None:
    """A client names itself, escaped and unprepared as it may be, and perhaps whom it wants to act as."""
    start = begun(client_first)
    assert (start.user, start.authorization) == (user, authorization)


@pytest.mark.parametrize(
    "client_first",
    [
        *[b"", b"n", b"n,,", b"n,,n=user", b"n,,r=x,n=user", b"n,,n=,r=x", b"n,,n=user,r=", b",,n=user,r=x"],
        *[b"p=tls-exporter,,n=user,r=x", b"p,,n=user,r=x", b"x,,n=user,r=x", b"N,,n=user,r=x"],
        *[b"n,,m=x,n=user,r=x", b"n,,n=user,r=x,m=x", b"n,,n=user,r=x,", b"n,,n=user,r=x,y"],
        *[b"n,a=,n=user,r=x", b"n,b=user,n=user,r=x", b"n,user,n=user,r=x", b"n,a=a=b,n=user,r=x"],
        *[b"n,,n=a=b,r=x", b"n,,n=a=2c,r=x", b"n,,n=a=,r=x", b"n,,n=us\xffer,r=x", b"n,,n=" + b"u" * 1025 + b",r=x"],
        *[b"n,,n=user,r=a b", b"n,,n=user,r=a\nb", b"n,,n=user,r=\xc3\xa9", b"n,,n=user,r=" + b"x" * 1025],
        b"n,,n=user,r=x,x=" + b"y" * 8192,
    ],
)
def test_malformed_client_first(client_first: bytes) -> None:
    """What the grammar does not know ends SCRAM with 501; so does demanding channel binding, or an extension.

    RFC 5802 sections 5.1, 6 and 7.
    """
    fails(scram_sha_256(), client_first)


@pytest.mark.parametrize(
    "final",
    [
        b"",
        PROOF,
        WITHOUT_PROOF,
        WITHOUT_PROOF + b",p=",
        WITHOUT_PROOF + b",p=" + PROOF[:-1],
        WITHOUT_PROOF + b",p=" + PROOF[4:],
        WITHOUT_PROOF + b",p=" + PROOF + b",x=y",
        WITHOUT_PROOF + b",m=x,p=" + PROOF,
        WITHOUT_PROOF + b",p=" + PROOF + b"\xff",
        WITHOUT_PROOF.replace(b"c=biws", b"c=eSws") + b",p=" + PROOF,
        WITHOUT_PROOF.replace(b"c=biws,", b"") + b",p=" + PROOF,
        WITHOUT_PROOF + b"x,p=" + PROOF,
        WITHOUT_PROOF[:-1] + b",p=" + PROOF,
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO,p=" + PROOF,
    ],
)
def test_malformed_client_final(final: bytes) -> None:
    """A last message of another grammar, header or nonce ends SCRAM with 501 (RFC 5802 section 7)."""
    exchange = begun(CLIENT_FIRST).proceed(KEYS, nonce=SERVER_NONCE)
    advance(exchange)
    fails_now(exchange, final)


def test_answer_to_the_signature() -> None:
    """Nothing but an empty response may follow the server's signature (RFC 4422 section 3.6)."""
    exchange = begun(CLIENT_FIRST).proceed(KEYS, nonce=SERVER_NONCE)
    advance(exchange)
    advance(exchange, WITHOUT_PROOF + b",p=" + PROOF)
    fails_now(exchange, b"x")


@pytest.mark.slow
@given(
    user=NAMES,
    password=NAMES,
    nonces=st.tuples(NONCES, NONCES),
    flag=st.sampled_from(["n", "y"]),
    acts_as_self=st.booleans(),
)
def test_scram_round_trip(user: str, password: str, nonces: tuple[str, str], flag: str, *, acts_as_self: bool) -> None:
    """Who knows the password is let in under the prepared name, and sees that the server knows it too.

    RFC 5802 section 3.
    """
    authorization = b"a=" + scram_name(user) if acts_as_self else b""
    client_first = b",".join([flag.encode(), authorization, b"n=" + scram_name(user), b"r=" + nonces[0].encode()])
    keys = ScramKeys.derive(password, salt=b"salt", iterations=4096)

    exchange = begun(client_first).proceed(keys, nonce=nonces[1])
    server_first = advance(exchange)
    assert isinstance(server_first, bytes)
    response, expected = client_final(password, client_first, server_first)
    assert advance(exchange, response) == expected
    assert advance(exchange, b"") == Identity(saslprep(user))


@pytest.mark.parametrize(
    ("password", "client_first"),
    [("pencil2", CLIENT_FIRST), ("Pencil", CLIENT_FIRST), ("pencil", b"n,a=root,n=user,r=rOprNGfwEbeRWgbNEkqO")],
)
def test_wrong_proof(password: str, client_first: bytes) -> None:
    """A wrong password ends SCRAM with 535, and so does the wish to act as another."""
    exchange = begun(client_first).proceed(KEYS, nonce=SERVER_NONCE)
    server_first = advance(exchange)
    assert isinstance(server_first, bytes)
    response, _ = client_final(password, client_first, server_first)
    with pytest.raises(SaslError) as caught:
        advance(exchange, response)
    assert caught.value.reply == CREDENTIALS_INVALID
    assert str(caught.value) == "535 5.7.8 Authentication credentials invalid"


@pytest.mark.parametrize("key", [KEYS.stored_key, KEYS.server_key])
def test_what_is_kept_lets_nobody_in(key: bytes) -> None:
    """Who has read the keys of a user cannot log in by them (RFC 5802 section 3)."""
    exchange = begun(CLIENT_FIRST).proceed(KEYS, nonce=SERVER_NONCE)
    advance(exchange)
    message = b",".join([CLIENT_FIRST.removeprefix(b"n,,"), SERVER_FIRST, WITHOUT_PROOF])
    signature = hmac.digest(KEYS.stored_key, message, "sha256")
    proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
    with pytest.raises(SaslError) as caught:
        advance(exchange, WITHOUT_PROOF + b",p=" + b64encode(proof))
    assert caught.value.reply == CREDENTIALS_INVALID


def test_nobody() -> None:
    """A user who is not there is asked for a proof like any other, with the same salt each time, and is refused."""
    keys = ScramKeys.of_nobody("user", secret=b"s")
    assert keys == ScramKeys.of_nobody("user", secret=b"s")
    assert keys not in {ScramKeys.of_nobody("user2", secret=b"s"), ScramKeys.of_nobody("user", secret=b"t")}
    ours = ScramKeys.derive("pencil", salt=bytes(16))
    assert (keys.iterations, len(keys.salt)) == (ours.iterations, len(ours.salt))
    keys = ScramKeys.of_nobody("user", secret=b"s", iterations=4096, salt_size=12)
    assert (keys.iterations, len(keys.salt)) == (4096, 12)

    exchange = begun(CLIENT_FIRST).proceed(keys, nonce=SERVER_NONCE)
    server_first = advance(exchange)
    assert isinstance(server_first, bytes)
    response, _ = client_final("pencil", CLIENT_FIRST, server_first)
    with pytest.raises(SaslError) as caught:
        advance(exchange, response)
    assert caught.value.reply == CREDENTIALS_INVALID


def test_fits() -> None:
    """Keys fit the password that they were derived from, however it is written, and no other (RFC 4616 section 2)."""
    keys = ScramKeys.derive("\u2168", salt=b"salt", iterations=4096)
    assert [keys.fits(password) for password in ("\u2168", "IX", "I\u00adX")] == [True, True, True]
    assert [keys.fits(password) for password in ("ix", "", "\0", "\u0627\u0031")] == [False] * 4


@pytest.mark.parametrize(
    ("salt", "iterations", "stored_key", "server_key"),
    [
        (b"", 4096, bytes(32), bytes(32)),
        (b"x", 4095, bytes(32), bytes(32)),
        (b"x", 10_000_001, bytes(32), bytes(32)),
        (b"x", 4096, bytes(31), bytes(32)),
        (b"x", 4096, bytes(32), bytes(33)),
        (b"x", 4096, b"", b""),
    ],
)
def test_bad_keys(salt: bytes, iterations: int, stored_key: bytes, server_key: bytes) -> None:
    """Keys that could not be SCRAM-SHA-256's, or are too cheap to guess at, cannot be made (RFC 7677 section 4)."""
    with pytest.raises(ValueError, match=r"iterations|octets"):
        ScramKeys(salt, iterations, stored_key, server_key)


def test_secrets_are_not_shown() -> None:
    """Neither a password nor a key is in what a log or a traceback would show."""
    assert "pencil" not in repr(Password("user", "pencil"))
    assert repr(KEYS) == f"ScramKeys(salt={KEYS.salt!r}, iterations=4096)"


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("name", [*HOSTILE, "x" * (MAX_SIZE + 1), "\u00e9" * 513, "\ud800"])
def test_bad_identity(name: str) -> None:
    """An identity cannot be made of what would break a line, flood one, or be nobody's."""
    with pytest.raises(ValueError, match="printable"):
        Identity(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b\u3000c", "a b c"),
        ("e\u0301", "\u00e9"),
        ("\u05d0\u0031\u05d1", "\u05d0\u0031\u05d1"),
        ("", ""),
    ],
)
def test_saslprep(text: str, expected: str) -> None:
    """Names and passwords that look the same become the same (RFC 4013 sections 2.1 and 2.2)."""
    assert saslprep(text) == saslprep(text, is_stored=True) == expected


@pytest.mark.parametrize("text", ["\u0007", "\u0627\u0031", "\u05d0a\u05d1", "a\u05d0", "\ud800", "\u202e"])
def test_saslprep_refuses(text: str) -> None:
    """Controls, marks of direction, and text of two directions are refused.

    RFC 4013 sections 2.3 and 2.4, RFC 3454 section 6.
    """
    with pytest.raises(ValueError, match="RFC 4013"):
        saslprep(text)


def test_unassigned() -> None:
    """What Unicode 3.2 did not know may be compared, but not stored (RFC 4013 section 2.5)."""
    assert read_name("\U0001f600") == "\U0001f600"
    with pytest.raises(ValueError, match="RFC 4013"):
        read_name("\U0001f600", is_stored=True)


@given(st.text())
def test_prepared_once(text: str) -> None:
    """What has been prepared is prepared: a name that may be compared is equal to itself when it is read again."""
    try:
        name = read_name(text)
    except ValueError:
        return
    assert read_name(name) == name


# ---------------------------------------------------------------- SCRAM-SHA-256, the client's side


def scram_client(credentials: Password | None = None, nonce: str = "rOprNGfwEbeRWgbNEkqO") -> ScramClient:
    """Give a client."""
    return ScramClient(credentials or Password("user", "pencil"), nonce=nonce)


def test_scram_client_example() -> None:
    """The client says what that of RFC 7677 section 3 says, and believes its server."""
    client = scram_client()
    assert client.first == CLIENT_FIRST
    client.read(SERVER_FIRST)
    client.derive()
    assert client.final() == WITHOUT_PROOF + b",p=" + PROOF
    client.verify(SERVER_FINAL)


@given(NAMES, NAMES, st.tuples(NONCES, NONCES))
def test_scram_both_sides(user: str, password: str, nonces: tuple[str, str]) -> None:
    """Our client and our server agree, whatever the name, and also where it is said whom the user acts as."""
    keys = ScramKeys.derive(password, salt=b"salt", iterations=4096)
    client = scram_client(Password(user, password, user), nonces[0])
    _, start = play(scram_sha_256(), client.first)
    assert isinstance(start, ScramStart)
    server = start.proceed(keys, nonce=nonces[1])
    client.read(next(server))
    client.derive()
    client.verify(server.send(client.final()))
    with pytest.raises(StopIteration) as caught:
        server.send(b"")
    assert caught.value.value == Identity(saslprep(user))


@pytest.mark.parametrize(
    ("challenge", "text"),
    [
        (b"", "none to SCRAM"),
        (b"\xff", "codec"),
        (b"e=other-error", "none to SCRAM"),
        (b"m=x," + SERVER_FIRST, "none to SCRAM"),
        (SERVER_FIRST.replace(b"r=rO", b"r=xO"), "none to SCRAM"),
        (CLIENT_FIRST[8:] + SERVER_FIRST[SERVER_FIRST.index(b",") :], "none to SCRAM"),
        (SERVER_FIRST.replace(b"s=W22ZaJ0SNY7soEsUEjb6gQ==", b"s="), "none to SCRAM"),
        (SERVER_FIRST.replace(b"gQ==", b"g"), "base64"),
        (SERVER_FIRST.replace(b"4096", b"4095"), "4095 iterations are not 4096 to 1000000"),
        (SERVER_FIRST.replace(b"4096", b"1000001"), "1000001 iterations"),
        (SERVER_FIRST.replace(b"4096", b"9" * 11), "none to SCRAM"),
    ],
)
def test_scram_client_is_careful(challenge: bytes, text: str) -> None:
    """It goes on with an answer to its own nonce alone, and neither toils for a server nor gives its password away."""
    with pytest.raises(ValueError, match=text):
        scram_client().read(challenge)


@pytest.mark.parametrize("challenge", [b"", b"v=", b"e=invalid-proof", SERVER_FINAL[:-2] + b"w=", b"\xff"])
def test_scram_client_believes_nobody_else(challenge: bytes) -> None:
    """A server that does not know the password is found out (RFC 5802 section 5)."""
    client = scram_client()
    client.read(SERVER_FIRST)
    client.derive()
    client.final()
    with pytest.raises(ValueError, match="the signature is not that of a server that knows our password"):
        client.verify(challenge)


@pytest.mark.parametrize("credentials", [Password("a\0b", "x"), Password("a", "x\u0007"), Password("a", "x", "\x7f")])
def test_scram_client_prepares_names(credentials: Password) -> None:
    """What SASLprep does not allow is never said."""
    with pytest.raises(ValueError, match="RFC 4013"):
        scram_client(credentials)
