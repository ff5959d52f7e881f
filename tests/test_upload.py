"""Files that staff give the page: who may, how large, and what comes back."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
from argon2 import PasswordHasher
from PIL import Image
from starlette.testclient import TestClient
from wall_fakes import PASSWORD, USER, FakePatient, FakeWard, make_loop

from rhythmwatch.classifying import FileClassifier
from web import routes
from web.app import create_app
from web.auth import COOKIE
from web.parts import FileRefusedError, Parts
from web.settings import WebSettings


class Echo:
    """Says what it got; refuses what is called bad."""

    async def classify(self, name: str, data: bytes) -> bytes:
        """Answer."""
        if name == "bad.csv":
            raise FileRefusedError("bad.csv is bad: give another")
        return json.dumps({"name": name, "size": len(data)}).encode()


@pytest.fixture
def client() -> Iterator[TestClient]:
    ward = FakeWard([FakePatient("Bed 1", make_loop(1, "N", 70, 0))])
    ward.add_user(USER, PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD))

    @contextlib.asynccontextmanager
    async def parts(settings: WebSettings) -> AsyncIterator[Parts]:
        async with ward.open(settings) as opened:
            yield dataclasses.replace(opened, classifier=Echo())

    settings = WebSettings(redis_url="redis://nowhere")
    with TestClient(create_app(settings, parts=parts), follow_redirects=False) as client:
        client.headers["origin"] = "http://testserver"
        yield client


def log_in(client: TestClient) -> dict[str, str]:
    """Headers that an act needs."""
    answer = client.post("/login", data={"user": USER, "password": PASSWORD})
    client.cookies.set(COOKIE, answer.cookies[COOKIE])
    return {"x-csrf-token": client.get("/api/session").json()["csrf"]}


def test_only_our_own_page_may_give_files(client: TestClient) -> None:
    """Without a session 401, without the token 403."""
    assert client.post("/api/classify", content=b"x").status_code == 401
    log_in(client)
    assert client.post("/api/classify", content=b"x").status_code == 403


def test_a_file_goes_to_the_classifier_and_its_refusal_comes_back(client: TestClient) -> None:
    """Name and bytes arrive; a refusal is 422 with its one line; nothing at all is 422."""
    own = log_in(client)
    answer = client.post("/api/classify", content=b"abc", headers=own | {"x-file-name": "Strip%20%C3%A4.csv"})
    assert answer.json() == {"name": "Strip ä.csv", "size": 3}
    answer = client.post("/api/classify", content=b"abc", headers=own | {"x-file-name": "bad.csv"})
    assert (answer.status_code, answer.json()["detail"]) == (422, "bad.csv is bad: give another")
    assert client.post("/api/classify", content=b"", headers=own).status_code == 422


def test_a_file_that_is_too_large_is_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit: 413, and what to do."""
    monkeypatch.setattr(routes, "LARGEST_FILE", 1 << 20)
    answer = client.post("/api/classify", content=b"x" * ((1 << 20) + 1), headers=log_in(client))
    assert answer.status_code == 413
    assert "1 MiB" in answer.json()["detail"]


async def test_the_classifier_runs_in_a_process_of_its_own() -> None:
    """A picture comes back as JSON; a wrong file as its one line."""
    out = io.BytesIO()
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(out, "PNG")
    result = json.loads(await FileClassifier().classify("a.png", out.getvalue()))
    assert result["kind"] == "image"
    with pytest.raises(FileRefusedError, match="says no sampling rate"):
        await FileClassifier().classify("../../a.csv", b"II\n1\n")
