import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.catalog.download.addresses import TOO_LONG, Link, address_problem, read_link


@pytest.mark.parametrize(
    ("cell", "url"),
    [
        (
            "https://m.media-amazon.com/images/I/51mo8htwTHL.jpg",
            "https://m.media-amazon.com/images/I/51mo8htwTHL.jpg",
        ),
        ("HTTP://Shop.Example:80/A.jpg#top", "http://shop.example/A.jpg"),
        ('  "https://a.example/x.jpg" ', "https://a.example/x.jpg"),
        ("https://a.example/x y.jpg", "https://a.example/x%20y.jpg"),
        ("https://bücher.example/ä.jpg?q=ü", "https://xn--bcher-kva.example/%C3%A4.jpg?q=%C3%BC"),
        ("https://a.example/100%25.jpg", "https://a.example/100%25.jpg"),
        ("['https://a.example/1.jpg', 'https://a.example/2.jpg']", "https://a.example/1.jpg"),
        ('["https://a.example/1.jpg"]', "https://a.example/1.jpg"),
        ("https://a.example/w_1,h_2/1.jpg,https://a.example/2.jpg", "https://a.example/w_1,h_2/1.jpg"),
        ("https://a.example/1.jpg | https://a.example/2.jpg", "https://a.example/1.jpg"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
    ],
)
def test_a_usable_cell_becomes_one_canonical_url(cell, url):
    assert read_link(cell).url == url


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        ("images/1.jpg", "relative link"),
        ("//host/x.png", "relative link"),
        ("nan", "not a link"),
        ("file:///etc/passwd", "scheme not allowed: file"),
        ("javascript:alert(1)", "scheme not allowed: javascript"),
        ("http:///x.jpg", "not a link: no host"),
        ("http://user:secret@a.example/x.jpg", "not a link: user name in it"),
        ("http://a.example\\@127.0.0.1/x", "not a link: backslash"),
        ("http://a..example/x", "bad host: not a domain name"),
        ("http://a.example:99999/x", "not a link: Port out of range 0-65535"),
        ("http://a.example/\nx.jpg", "not a link: control character"),
        ("http://a.example/" + "x" * 5000, TOO_LONG),
        ("http://a.example/" + "é" * 3000, TOO_LONG),  # 18,000 characters when percent-encoded
        ("http://[fe80::1%é]/a.jpg", "bad host: an IPv6 address with a scope"),
        ("http://[fe80::1%eth0]/a.jpg", "bad host: an IPv6 address with a scope"),
        ("http://[12:zz]/", "not a link: '12:zz' does not appear to be an IPv4 or IPv6 address"),
    ],
)
def test_an_unusable_cell_says_why(cell, problem):
    link = read_link(cell)
    assert (link.url, link.problem) == (None, problem)


@pytest.mark.parametrize("cell", [None, "", "   ", '""', "[]"])
def test_an_empty_cell_is_no_problem(cell):
    assert (read_link(cell).url, read_link(cell).problem) == (None, None)


def test_of_a_list_every_link_that_can_be_used_is_taken_and_one_that_can_not_says_why():
    cell = """ '["1.jpg", "https://a.example/2.jpg", "https://A.example/2.jpg"]' """
    link = read_link(cell, take_all=True)
    note = "list: usable links were taken, left out: relative link"
    assert link == Link(("https://a.example/2.jpg",), "relative link", note)
    assert read_link(None, take_all=True) == read_link(" '' ", take_all=True) == Link()


def test_what_had_to_be_done_to_read_a_cell_is_noted():
    assert read_link("'https://a.example/x'").note == "quoted: the quotes were taken off"
    assert read_link("['https://a.example/x']").note == "list: the first link was taken"
    assert read_link("https://a.example/x").note is None


@pytest.mark.parametrize(
    "cell",
    [
        "http://a.example/" + " " * 65_000 + "x",
        "http://a.example/" + " , " * 20_000,
        "http://a.example/" + " " * 3_000_000 + "x",
        "http://a.example/" + ";" * 3_000_000 + " http://b.example/",
        "[" * 60_000 + "]",
    ],
)
def test_a_cell_of_any_length_is_refused_in_time_that_grows_with_its_length_alone(cell):
    signal.alarm(30)  # each took minutes to hours where time grew with the square
    try:
        assert read_link(cell).problem == TOO_LONG
    finally:
        signal.alarm(0)


@given(st.text(max_size=60) | st.text(max_size=60).map("http://".__add__))
def test_any_cell_is_read_without_an_error_and_a_url_reads_as_itself(cell):
    url = read_link(cell).url
    if url is not None:
        assert url.isascii()
        assert url.startswith(("http://", "https://"))
        assert read_link(url).url == url


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"),
        *("10.1.2.3", "172.16.0.1", "192.168.1.1", "fd12::1", "100.64.0.1"),
        *("169.254.1.1", "fe80::1%eth0", "169.254.169.254", "168.63.129.16", "fd00:ec2::254"),
        *("0.0.0.0", "224.0.0.1", "255.255.255.255", "240.0.0.1", "ff02::1"),
        *("2002:7f00:1::", "64:ff9b::a00:1"),  # 127.0.0.1 and 10.0.0.1 inside IPv6
        *("fec0::1", "3fff::1", "64:ff9b:1::a00:1"),  # site-local, documentation, NAT64 of one's own
    ],
)
def test_addresses_inside_a_network_are_refused(address):
    assert address_problem(address).startswith("address refused: ")


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_public_addresses_are_allowed(address):
    assert address_problem(address) is None


def test_allowing_private_addresses_never_allows_metadata_services():
    assert address_problem("10.0.0.1", allow_private=True) is None
    assert address_problem("127.0.0.1", allow_private=True) is None
    for address in (
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "::ffff:169.254.169.254",
    ):
        assert address_problem(address, allow_private=True) is not None
