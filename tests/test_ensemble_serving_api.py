"""The API in one process: prices, explanations, refusals; hostile bodies are answered, never with a 500."""

import asyncio
import base64
import io
import json
import logging
import socket
import struct
import time
import zlib
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

from ensemble.model.price_model import ModelInputs
from ensemble.serving.app import create_app
from ensemble.serving.log import LOGGER, JsonLines
from ensemble.serving.settings import Limits, ServeSettings
from tests.fake_prices import FakePriceModel
from tests.fake_prices import serving as serving_app
from tests.image_server import Site, pixel_bomb, serving

TOKEN = "a-token-that-nobody-guesses"
JSON = {"content-type": "application/json"}


def image_bytes(kind="JPEG", size=(32, 24)):
    buffer = io.BytesIO()
    Image.new("RGB", size, "#c33").save(buffer, kind)
    return buffer.getvalue()


@asynccontextmanager
async def client_of(model, folder=Path(), **settings):
    limits = Limits(**settings.pop("limits", {}))
    gate = create_app(model, Path(folder), ServeSettings(limits=limits, **settings))
    app = gate._app
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(gate, raise_app_exceptions=False), base_url="http://localhost"
        ) as client,
    ):
        yield client


def ask(method, path, model=None, folder=Path(), settings=None, **request):
    async def run():
        async with client_of(model or FakePriceModel(), folder, **(settings or {})) as client:
            return await client.request(method, path, **request)

    return asyncio.run(run())


async def becomes(client, path, status):
    for _ in range(500):
        if (await client.get(path)).status_code == status:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{path} never answers {status}")


def price(*products, **request):
    return ask("POST", "/v1/price", json={"products": list(products)}, **request)


def test_many_products_are_priced_in_their_order():
    answer = price({"title": "tea"}, {}, {"title": "green tea", "description": None, "rating": 4, "brand": 7})
    assert answer.status_code == 200
    found = answer.json()
    assert [one["price"] for one in found["prices"]] == [3.0, None, 9.0]
    assert found["prices"][1]["reason"] == "nothing is known of the product"
    assert found["prices"][0] == {
        "price": 3.0, "low": pytest.approx(1.65), "high": pytest.approx(5.7),
        "flags": ["image missing"], "reason": None, "image_problem": None,
    }  # fmt: skip
    assert (found["currency"], found["interval"], found["model"]) == ("$", 0.9, FakePriceModel.fingerprint)
    narrower = price({"title": "tea"}, params={"interval": 0.5}).json()["prices"][0]
    assert (narrower["low"], narrower["high"]) == (2.25, 4.5)


def test_an_image_comes_as_base64_or_as_a_file_and_gives_the_same_price():
    content = image_bytes()
    as_text = price({"title": "tea", "photo": {"base64": base64.b64encode(content).decode()}})
    as_file = ask("POST", "/v1/price", data={"title": "tea"}, files={"photo": ("tea.jpg", content)})
    assert as_text.json() == as_file.json()
    assert as_text.json()["prices"][0]["price"] == 30.0


@pytest.mark.parametrize(
    "content, problem",
    [
        (b"GIF89a but not", "not an image of a known format"),
        (image_bytes("PNG")[:-30], None),
        (pixel_bomb(), "more than 50,000,000 pixels"),
        (b"", "not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
    ],
    ids=["broken", "cut", "bomb", "empty", "program"],
)
def test_an_image_that_cannot_be_read_is_flagged_and_the_product_still_priced(content, problem):
    answer = price({"title": "tea", "photo": {"base64": base64.b64encode(content).decode()}}, {"title": "x"})
    first, second = answer.json()["prices"]
    assert answer.status_code == 200
    assert (first["price"], first["flags"], first["image_problem"]) == (3.0, ["image unreadable"], problem)
    assert (second["flags"], second["image_problem"]) == (["image missing"], None)


def test_text_that_is_no_base64_is_an_unreadable_image():
    assert (
        price({"title": "tea", "photo": {"base64": "§"}}).json()["prices"][0]["image_problem"] == "not base64"
    )


def test_images_of_one_request_have_a_limit_together():
    photo = {"base64": base64.b64encode(image_bytes(size=(100, 100))).decode()}
    limits = {"image_pixels": 20_000, "all_pixels": 25_000}
    answer = price(*[{"photo": photo}] * 3, settings={"limits": limits})
    assert answer.status_code == 413
    assert answer.json() == {"detail": "the images of one request have more than 25000 pixels together"}


def test_links_are_fetched_where_allowed_and_refused_where_not():
    with serving(Site()) as port:
        url = f"http://127.0.0.1:{port}"
        expected = {
            f"{url}/img/1": None,
            f"{url}/hops?n=3": None,
            f"{url}/404": "link: http 404",
            f"{url}/hops?n=9": "link: more than 5 redirects",
            f"{url}/redirect?to=file:///etc/passwd": "link: redirect refused: scheme not allowed: file",
            f"{url}/redirect?to=http://169.254.169.254/": "link: address refused: a metadata service (169.254.169.254)",
            f"{url}/pixels": "more than 50,000,000 pixels",
            f"{url}/html": "link: not an image: HTML",
            "file:///etc/passwd": "link: scheme not allowed: file",
            "": "link: empty",
        }
        products = [{"title": "tea", "photo": {"link": link}} for link in expected]
        refused = price(*products)
        public = price(*products, settings={"allow_links": True})
        allowed = price(*products, settings={"allow_links": True, "allow_private": True})
    assert refused.status_code == 422
    assert "products.0.photo.base64: Field required" in refused.json()["detail"]
    assert "address refused: loopback" in public.json()["prices"][0]["image_problem"]
    found = allowed.json()["prices"]
    assert {link: one["image_problem"] for link, one in zip(expected, found, strict=True)} == expected
    assert (found[0]["price"], found[2]["price"]) == (30.0, 3.0)


def test_images_behind_links_count_among_the_bytes_at_work_which_are_given_back():
    async def run(url):
        settings = {"allow_links": True, "allow_private": True, "limits": {"held_bytes": 20_000}}
        async with client_of(FakePriceModel(), **settings) as client:
            few, many = (
                {"products": [{"title": "tea", "photo": {"link": f"{url}/img/{n}"}} for n in range(most)]}
                for most in (1, 20)
            )
            for _ in range(3):
                refused = await client.post("/v1/price", json=many)
                assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
                assert (await client.post("/v1/price", json=few)).json()["prices"][0]["price"] == 30.0

    with serving(Site()) as port:
        asyncio.run(run(f"http://127.0.0.1:{port}"))


def test_explanations_name_heads_effects_and_near_products_with_their_images(tmp_path):
    model = FakePriceModel(tmp_path)

    async def run():
        async with client_of(model, tmp_path) as client:
            found = await client.post("/v1/explain", json={"products": [{"title": "green tea"}, {}]})
            image = await client.get(found.json()["explanations"][0]["near"][0]["image"])
            others = [
                await client.get(f"/v1/images/{path}")
                for path in (
                    "weights.npz",
                    "near/9.jpg",
                    "..%2f..%2fetc/passwd",
                    "%2fetc/passwd",
                    "near",
                    "a%00b",
                )
            ]
            return found, image, others

    found, image, others = asyncio.run(run())
    first, second = found.json()["explanations"]
    assert first["priced"]["price"] == 9.0
    assert sum(one["share"] for one in first["heads"]) == 1
    assert first["effects"][0]["what"] == "organic"
    assert [one["id"] for one in first["near"]] == [0, 1, 2, 3, 4]
    assert first["near"][4]["image"] is None
    assert (image.status_code, image.headers["content-type"]) == (200, "image/jpeg")
    assert image.content == (tmp_path / "near/0.jpg").read_bytes()
    assert [one.status_code for one in others] == [404] * 6
    assert (second["priced"]["price"], second["near"]) == (None, [])
    too_many = ask("POST", "/v1/explain", json={"products": [{"title": "x"}] * 17})
    assert too_many.status_code == 422
    assert "at most 16 are explained" in too_many.json()["detail"]


def big_png(n_bytes):
    """A PNG whose compressed comment unpacks to `n_bytes`."""
    png = image_bytes("PNG")
    data = b"c\x00\x00" + zlib.compress(bytes(n_bytes))
    chunk = b"zTXt" + data
    return png[:33] + struct.pack(">I", len(data)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]


def deep(n):
    return b'{"products":' + b"[" * n + b"]" * n + b"}"


HOSTILE = {
    "empty": (b"", 422, "EOF"),
    "invalid UTF-8": (b'{"products":[{"title":"\xff\xfe"}]}', 422, "UTF-8|unicode|control"),
    "lone surrogate": (rb'{"products":[{"title":"\ud800"}]}', 422, "surrogate|escape"),
    "deep": (deep(200_000), 422, "recursion"),
    "deep object": (b'{"products":[' + b'{"a":' * 100_000, 422, "recursion"),
    "not finite": (b'{"products":[{"title":"x","rating":NaN},{"rating":1e999}]}', 200, ""),
    "huge number": (b'{"products":[{"title":"x","rating":' + b"9" * 10_000 + b"}]}", 422, "number"),
    "no products": (b'{"products":[]}', 422, "at least 1 item"),
    "too many": (json.dumps({"products": [{}] * 257}).encode(), 422, "at most 256 items"),
    "no list": (b'{"products":{"title":"x"}}', 422, "products: Input should be a valid array"),
    "wrong types": (b'{"products":[{"title":[1],"rating":true,"brand":{}}]}', 422, "products.0.title"),
    "unknown column": (b'{"products":[{"titel":"x"}]}', 422, "products.0.titel: Extra inputs are not permitted"),
    "unknown columns": (json.dumps({"products": [dict.fromkeys(map(str, range(300)), 0)] * 200}).encode(), 422, "and more"),
    "a path": (b'{"products":[{"photo":"/etc/passwd"}]}', 422, "products.0.photo"),
    "long text": (b'{"products":[{"title":"' + b"x" * 50_001 + b'"}]}', 422, "at most 50000 characters"),
    "same key twice": (b'{"products":[{"title":"x","title":"y"}]}', 200, ""),
    "zero byte": (rb'{"products":[{"title":"\u0000"}]}', 200, ""),
    "too large": (b" " * 1_000_001, 413, "body larger than 1000000 bytes"),
}  # fmt: skip


def test_hostile_bodies_are_answered_with_what_is_wrong_and_without_what_was_sent():
    async def run():
        async with client_of(FakePriceModel(), limits={"body_bytes": 1_000_000}) as client:
            for name, (content, status, said) in HOSTILE.items():
                answer = await client.post("/v1/price", content=content, headers=JSON)
                assert answer.status_code == status, (name, answer.text)
                assert len(answer.text) < 2000, name
                if said:
                    assert any(one.lower() in answer.json()["detail"].lower() for one in said.split("|")), (
                        name,
                        answer.text,
                    )
            after = await client.post("/v1/price", json={"products": [{"title": "tea"}]})
            assert after.json()["prices"][0]["price"] == 3.0

    asyncio.run(run())


@pytest.mark.parametrize(
    "request_, status, said",
    [
        ({"data": {"title": "x"}, "files": {"title": ("a.txt", b"x")}}, 422, "title: given more than once"),
        ({"files": {"title": ("a.txt", b"x")}}, 422, "title: text is wanted"),
        ({"files": {"photo": (None, "/etc/passwd")}}, 422, "photo: a file is wanted"),
        ({"data": {"nothing": "x"}, "files": {"photo": ("", b"")}}, 422, "nothing: the model has no such column"),
        ({"files": [("photo", ("a", b"x")), ("photo", ("b", b"x"))]}, 400, "Too many files"),
        ({"files": [(f"c{n}", (None, "x")) for n in range(9)]}, 400, "Too many fields"),
        ({"data": {"title": "x" * 50_001}, "files": {"photo": ("a", b"x")}}, 422, "title: more than 50000 characters"),
        ({"content": b"broken", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400, ""),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
        ({"content": b"x", "headers": {"content-type": "text/plain"}}, 415, "the content type must be"),
        ({"content": b"x"}, 415, "the content type must be"),
        ({"json": {"products": [{"title": "x"}]}, "params": {"interval": "nan"}}, 422, "query.interval"),
        ({"json": {"products": [{"title": "x"}]}, "params": {"interval": "2"}}, 422, "less than or equal to 0.999"),
    ],
)  # fmt: skip
def test_a_form_or_query_that_makes_no_sense_is_refused_by_name(request_, status, said):
    answer = ask("POST", "/v1/price", **request_)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["detail"]


def test_a_bomb_in_a_comment_of_an_image_is_not_unpacked():
    photo = {"base64": base64.b64encode(big_png(300_000_000)).decode()}
    (found,) = price({"title": "tea", "photo": photo}).json()["prices"]
    assert found["image_problem"].startswith("damaged: ")


def test_the_token_is_wanted_everywhere_but_for_probes():
    async def run():
        async with client_of(FakePriceModel(), token=TOKEN) as client:
            basic = base64.b64encode(f"anyone:{TOKEN}".encode()).decode()
            known = [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"Basic {basic}"]
            unknown = [
                None,
                "",
                "Bearer",
                f"Bearer {TOKEN}x",
                f"Bearer {TOKEN[:-1]}",
                "Basic ???",
                f"Basic {TOKEN}",
                TOKEN,
            ]
            for path in ("/", "/metrics", "/openapi.json", "/static/page.js", "/v1/images/x.jpg", "/nothing"):
                for given in unknown:
                    answer = await client.get(path, headers={} if given is None else {"authorization": given})
                    assert answer.status_code == 401
                    assert answer.headers["www-authenticate"].startswith("Bearer")
                assert (await client.get(path, headers={"authorization": known[0]})).status_code != 401
            for given in known:
                body = {"products": [{"title": "tea"}]}
                answer = await client.post("/v1/price", json=body, headers={"authorization": given})
                assert answer.status_code == 200
            assert (await client.get("/healthz")).json()["status"] == "ok"
            assert (await client.get("/readyz")).json()["status"] == "ready"

    asyncio.run(run())


def test_other_sites_and_other_names_of_this_server_are_refused():
    async def run():
        async with client_of(FakePriceModel(), hosts=("localhost", "::1")) as client:
            for host, status in {
                "localhost:8000": 200,
                "[::1]:8000": 200,
                "rebound.example": 421,
                "": 421,
            }.items():
                assert (await client.get("/", headers={"host": host})).status_code == status, host
            for site, status in {
                "same-origin": 200,
                "none": 200,
                "cross-site": 403,
                "same-site": 403,
            }.items():
                answer = await client.post(
                    "/answer", files={"title": (None, "x")}, headers={"sec-fetch-site": site}
                )
                assert answer.status_code == status, site

    asyncio.run(run())


def test_every_answer_is_closed_to_other_sites_and_carries_its_id():
    for path in ("/", "/healthz", "/nothing", "/static/page.css", "/static/nothing"):
        answer = ask("GET", path, headers={"x-request-id": "mine-1"})
        assert "default-src 'none'; script-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-request-id"] == "mine-1"
    made = ask("GET", "/healthz", headers={"x-request-id": "no\tid"}).headers["x-request-id"]
    assert len(made) == 16


def test_a_full_queue_answers_429_with_the_time_to_come_again():
    async def run():
        model = FakePriceModel()
        model.may_go_on.clear()
        async with client_of(model, limits={"waiting_rows": 4, "rows": 4, "batch_rows": 2}) as client:
            body = {"products": [{"title": "tea"}] * 2}
            asked = [asyncio.create_task(client.post("/v1/price", json=body)) for _ in range(12)]
            done, waiting = await asyncio.wait(asked, timeout=0.5)
            assert {one.result().status_code for one in done} == {429}
            assert 2 <= len(waiting) <= 3  # two in the queue, and one that was taken before they came
            assert all(int(one.result().headers["retry-after"]) >= 1 for one in done)
            model.may_go_on.set()
            assert {(await one).status_code for one in waiting} == {200}
            assert (await client.post("/v1/price", json=body)).status_code == 200

    asyncio.run(run())


def test_the_page_says_without_scripts_what_is_too_much_and_when_to_come_again():
    async def run():
        model = FakePriceModel()
        model.may_go_on.clear()
        async with client_of(model, limits={"waiting_rows": 1, "batch_rows": 1}) as client:
            photo = ("tea.jpg", image_bytes())
            twice = await client.post("/", files=[("photo", photo), ("photo", photo)])
            assert (twice.status_code, twice.headers["content-type"]) == (400, "text/html; charset=utf-8")
            assert "Too many files" in twice.text
            form = {"title": (None, "green tea")}
            asked = [asyncio.create_task(client.post("/", files=form)) for _ in range(3)]
            done, waiting = await asyncio.wait(asked, timeout=0.5)
            assert done
            for refused in (one.result() for one in done):
                assert refused.status_code == 429
                assert int(refused.headers["retry-after"]) >= 1
                assert "too many rows are waiting" in refused.text
                assert "green tea" in refused.text  # what was typed is kept
            model.may_go_on.set()
            assert {(await one).status_code for one in waiting} == {200}

    asyncio.run(run())


def test_bodies_at_work_have_a_limit_together_which_is_given_back():
    async def run():
        model = FakePriceModel()
        model.may_go_on.clear()
        async with client_of(model, limits={"held_bytes": 1000, "body_bytes": 600}) as client:
            body = json.dumps({"products": [{"title": "x" * 500}]}).encode()
            asked = [
                asyncio.create_task(client.post("/v1/price", content=body, headers=JSON)) for _ in range(3)
            ]
            done, waiting = await asyncio.wait(asked, timeout=0.5)
            assert [(one.result().status_code, one.result().headers["retry-after"]) for one in done] == [
                (429, "1")
            ] * 2
            model.may_go_on.set()
            assert [(await one).status_code for one in waiting] == [200]
            for _ in range(5):
                assert (await client.post("/v1/price", content=body, headers=JSON)).status_code == 200

    asyncio.run(run())


def test_a_request_that_takes_too_long_is_answered_and_a_model_that_hangs_is_not_ready():
    async def run():
        model = FakePriceModel()
        model.may_go_on.clear()
        async with client_of(model, limits={"seconds": 0.2}) as client:
            late = await client.post("/v1/price", json={"products": [{"title": "tea"}]})
            assert (late.status_code, late.headers["retry-after"]) == (503, "1")
            await becomes(client, "/readyz", 503)
            assert (await client.get("/healthz")).status_code == 200

            async def slowly():
                yield b"{"
                await asyncio.sleep(5)

            slow = await client.post("/v1/price", content=slowly(), headers=JSON)
            assert slow.status_code == 408
            model.may_go_on.set()
            await becomes(client, "/readyz", 200)

    asyncio.run(run())


def test_a_client_that_leaves_gives_up_its_place_in_the_queue():
    model = FakePriceModel()
    model.may_go_on.clear()
    with serving_app(create_app(model, Path(), ServeSettings())) as url:

        def waiting():
            (line,) = [
                x
                for x in httpx.get(f"{url}/metrics").text.splitlines()
                if x.startswith("shelfprice_waiting_rows")
            ]
            return float(line.split()[1])

        body = json.dumps({"products": [{"title": "tea"}]}).encode()
        head = b"POST /v1/price HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        address = (urlsplit(url).hostname, urlsplit(url).port)
        clients = []
        for n_waiting in (0, 1, 2):
            clients.append(socket.create_connection(address))
            clients[-1].sendall(head % len(body) + body)
            while waiting() != n_waiting or not model.batches:
                time.sleep(0.01)
        clients[1].close()
        while waiting() != 1:
            time.sleep(0.01)
        model.may_go_on.set()
        for client in (clients[0], clients[2]):
            assert client.recv(100).startswith(b"HTTP/1.1 200")
            client.close()
    assert model.batches == [1, 1]


def test_metrics_count_requests_products_flags_and_batches():
    async def run():
        async with client_of(FakePriceModel()) as client:
            await client.post("/v1/price", json={"products": [{"title": "tea"}, {}]})
            await client.get("/wp-admin")
            await client.request("BREW", "/v1/price")
            return (await client.get("/metrics")).text

    text = asyncio.run(run())
    for line in (
        'shelfprice_requests_total{method="POST",route="/v1/price",status="200"} 1.0',
        'shelfprice_requests_total{method="GET",route="other",status="404"} 1.0',
        'shelfprice_rows_total{outcome="priced"} 1.0',
        'shelfprice_rows_total{outcome="refused"} 1.0',
        'shelfprice_flags_total{flag="image missing"} 2.0',
        'shelfprice_batch_rows_sum{call="price"} 2.0',
        "shelfprice_waiting_rows 0.0",
        "process_resident_memory_bytes",
    ):
        assert line in text
    assert "BREW" not in text
    assert "wp-admin" not in text


def test_logs_are_lines_of_json_without_a_word_of_a_product_or_the_token():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger(LOGGER)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        headers = {"authorization": f"Bearer {TOKEN}"}
        secret = {"title": "secretive a bug", "brand": "secretive"}
        settings = {"token": TOKEN}
        failed = price(secret, settings=settings, headers=headers, params={"secretive": "secretive"})
        assert failed.status_code == 500
        price({"secretive": 1}, settings=settings, headers=headers)
        ask("GET", "/secretive", settings=settings, headers=headers | {"x-request-id": "secretive words"})
    finally:
        logger.removeHandler(handler)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    (error,) = [line for line in lines if line["level"] == "error"]
    assert error["error"] == "RuntimeError"
    assert any("fake_prices.py" in place for place in error["where"])
    assert error["id"] in failed.json()["detail"]
    (first, *_) = [line for line in lines if line["event"] == "request"]
    assert first["route"] == "/v1/price"
    assert (first["status"], first["rows"]) == (500, 1)
    assert "secretive" not in stream.getvalue()
    assert TOKEN not in stream.getvalue()


def test_a_model_of_other_columns_has_its_own_schema():
    model = FakePriceModel(inputs=ModelInputs(("catalog content",), None, (), ("class", "model_config")))
    product = {"catalog content": "tea", "class": "food", "model_config": "x"}
    assert price(product, model=model).json()["prices"][0]["price"] == 3.0
    schema = ask("GET", "/openapi.json", model=model).json()["components"]["schemas"]
    assert set(schema["Product"]["properties"]) == set(product)
    assert price({"photo": {"base64": ""}}, model=model).status_code == 422
