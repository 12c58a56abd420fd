"""Frontends that speak REST, each for a person."""

from dataclasses import dataclass
from typing import Any

import httpx2

from tests.people import Person

PROBLEM = {"title", "status", "detail", "code", "request_id"}


@dataclass(frozen=True)
class Frontend:
    """Asks over REST as someone. Only `send` gives answers as they come."""

    person: Person

    async def send(
        self, method: str, path: str, headers: dict[str, str] | None = None, **more: Any
    ) -> httpx2.Response:
        headers = {**self.person.headers, **(headers or {})}
        return await self.person.http.request(method, path, headers=headers, **more)

    async def ask(self, method: str, path: str, status: int = 200, **more: Any) -> Any:
        """Give what an answer says, which is of the status that was expected."""
        answer = await self.send(method, path, **more)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def get(self, path: str, **params: Any) -> Any:
        return await self.ask("GET", path, params=params)

    async def chat(self, message: str = "What is a lease?", **more: Any) -> Any:
        headers = {"Idempotency-Key": more.pop("key")} if "key" in more else {}
        return await self.ask("POST", "/chat", json={"message": message, **more}, headers=headers)

    async def refused(self, method: str, path: str, **more: Any) -> Any:
        """Send what is refused, and give the problem, but for what no two have in common."""
        return problem_in(await self.send(method, path, **more))


def problem_in(answer: httpx2.Response) -> Any:
    """Give the problem that an answer is, without its request's id."""
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    problem = answer.json()
    assert problem.keys() >= PROBLEM
    assert problem["status"] == answer.status_code
    assert problem.pop("request_id")
    return problem
