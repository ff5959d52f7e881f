"""Who may call what: every route of the application with every role, nobody, a foreign page and a token."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Iterator

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, APIWebSocketRoute
from people_app import HOST, ROLES, Site, running_site
from starlette.routing import BaseRoute, Mount
from starlette.websockets import WebSocketDisconnect

from alerts.people import covers
from web.roles import Guard
from web.routes import page

DEADLINE_S = 60.0
OPEN = {("GET", "/login"), ("POST", "/login"), ("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/fhir/R4/metadata")}
"""Routes that need no log-in, each for a reason: the log-in itself, health without patient data, FHIR's conformance."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("roles")) as site:
        yield site


def guards(dependant: Dependant) -> list[Guard]:
    """All guards of a route, wherever they stand among its dependencies."""
    found = [dependant.call] if isinstance(dependant.call, Guard) else []
    return found + [guard for inner in dependant.dependencies for guard in guards(inner)]


def routes_of(routes: list[BaseRoute]) -> Iterator[BaseRoute]:
    """Every single route, those of included routers too."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is None:
            yield route
        else:
            yield from routes_of(inner.routes)


def guarded(site: Site) -> list[tuple[str, str, Guard]]:
    """List method, an address that fits, and guard of each route that has one."""
    found = []
    for route in routes_of(site.app.routes):
        if isinstance(route, APIRoute) and guards(route.dependant):
            address = re.sub(r"\{[^}]*\}", "1", route.path)
            found += [(method, address, guards(route.dependant)[0]) for method in sorted(route.methods)]
    return found


def test_every_route_states_its_role(site: Site) -> None:
    """A route without a guard fails here unless it is a page or one of the few open ones; what changes acts."""
    for route in routes_of(site.app.routes):
        if isinstance(route, Mount):
            assert route.path == "/ui"
            continue
        if isinstance(route, APIWebSocketRoute):
            assert route.path == "/ws"
            continue
        assert isinstance(route, APIRoute), route
        for method in route.methods:
            if (method, route.path) in OPEN or route.endpoint is page:
                continue
            found = guards(route.dependant)
            assert len(found) == 1, f"{method} {route.path} needs exactly one of needs(role), acts(role)"
            assert found[0].acting or method == "GET", f"{method} {route.path} changes something: use acts(role)"
    assert len(guarded(site)) >= 10


def test_pages_lead_strangers_to_the_log_in(site: Site) -> None:
    """No page is shown without a session."""
    pages = [
        route.path for route in routes_of(site.app.routes) if isinstance(route, APIRoute) and route.endpoint is page
    ]
    assert "/" in pages
    for path in pages:
        answer = site.client.get(re.sub(r"\{[^}]*\}", "1", path))
        assert (answer.status_code, answer.headers["location"].split("?")[0]) == (303, "/login"), path


def test_nobody_calls_nothing(site: Site) -> None:
    """Without a session, or with a token that is none, every guarded route answers 401."""
    for method, path, _ in guarded(site):
        assert site.client.request(method, path, json={}).status_code == 401, (method, path)
        wrong = {"authorization": "Bearer rw_wrong", **{k: v for k, v in site.enter("admin").items() if k == "cookie"}}
        assert site.client.request(method, path, json={}, headers=wrong).status_code == 401, (method, path)


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_what_it_may_and_nothing_else(site: Site, role: str) -> None:
    """Lower roles get 403 with the reason; the role itself is not stopped by a guard. By session and by token."""
    now = int(time.time() * 1000)
    _, secret = site.people.make_token(role, role, "test", now, now + 3_600_000)
    refused = passed = 0
    for method, path, guard in guarded(site):
        for headers in (site.enter(role), {"authorization": f"Bearer {secret}"}):
            answer = site.client.request(method, path, json={}, headers=headers)
            if covers(role, guard.role):
                assert answer.status_code < 500 or answer.status_code == 503, (method, path, answer.text)
                assert "this needs" not in answer.text, (method, path, answer.text)
                assert answer.status_code != 401, (method, path)
                passed += 1
            else:
                assert answer.status_code == 403, (method, path, answer.text)
                assert f"needs {guard.role}" in answer.text
                refused += 1
    assert passed
    assert bool(refused) == (role != "admin")


def test_acts_need_our_page_and_its_token(site: Site) -> None:
    """An admin's cookie alone changes nothing: wrong, missing or foreign signs are refused everywhere."""
    acting = [(method, path) for method, path, guard in guarded(site) if guard.acting]
    assert acting
    for method, path in acting:
        good = site.enter("admin")
        for bad in (
            good | {"x-csrf-token": "wrong"},
            {key: value for key, value in good.items() if key != "x-csrf-token"},
            good | {"origin": "https://evil.example"},
            {key: value for key, value in good.items() if key != "origin"},
        ):
            answer = site.client.request(method, path, json={}, headers=bad)
            assert answer.status_code == 403, (method, path)
            assert "our page" in answer.text


def notes_it(endpoint: Callable[..., object]) -> bool:
    """Whether a route writes to the trail, itself or through a function of its module that it calls."""
    source = inspect.getsource(endpoint)
    called = (endpoint.__globals__.get(name) for name in re.findall(r"(\w+)\(", source))
    sources = [source, *(inspect.getsource(function) for function in called if inspect.isfunction(function))]
    return any("await audit(" in text for text in sources)


def test_every_act_is_noted(site: Site) -> None:
    """A route that changes something writes to the trail; classifying a file keeps nothing."""
    silent = [
        route.path
        for route in routes_of(site.app.routes)
        if isinstance(route, APIRoute)
        and any(guard.acting for guard in guards(route.dependant))
        and not notes_it(route.endpoint)
    ]
    assert silent == ["/api/classify"]


def connect(site: Site, role: str, user: str = ""):
    """Open the websocket of a page."""
    return site.client.websocket_connect("/ws", headers=site.enter(role, user))


@pytest.mark.parametrize("role", ROLES)
def test_every_role_sees_the_wall(site: Site, role: str) -> None:
    """The websocket only shows, so every role may open it."""
    with connect(site, role) as socket:
        assert socket.receive_bytes()


@pytest.mark.parametrize("change", [{"role": "viewer"}, {"disabled": True}, {"password_hash": "x"}])
def test_websocket_closes_when_the_role_is_withdrawn(site: Site, change: dict[str, object]) -> None:
    """A page that is open feels at once that its user has another role, is switched off, or has a new password."""
    name = f"temp {change}"
    site.people.add_user(name, "x", "clinician", 1)
    with connect(site, "", name) as socket:
        assert socket.receive_bytes()
        time.sleep(0.002)  # sessions are told apart by the millisecond
        site.people.change(name, int(time.time() * 1000), **change)
        deadline = time.monotonic() + DEADLINE_S
        code = 0
        while not code and time.monotonic() < deadline:
            try:
                socket.receive_bytes()
            except WebSocketDisconnect as closed:
                code = closed.code
    assert code == 4401


def test_websocket_refuses_a_removed_account(site: Site) -> None:
    """The session of an account that is gone opens nothing."""
    with pytest.raises(WebSocketDisconnect), connect(site, "", "nobody"):
        pass
    assert site.client.get("/api/session", headers=site.enter("", "nobody")).status_code == 401


def test_policy_allows_no_foreign_or_inline_script(site: Site) -> None:
    """Every answer, errors too, carries the strict policy."""
    for path in ("/login", "/", "/api/users", "/nowhere"):
        policy = site.client.get(path, headers={"origin": HOST}).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
