"""The chat model behind any server that speaks OpenAI's chat-completions API.

https://platform.openai.com/docs/api-reference/chat-streaming is what it should send. vLLM,
Ollama, llama.cpp and Gemini each differ a little; what is known of that is marked here.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import assert_never, cast
from uuid import uuid4

import httpx2
import openai
from openai.types.chat import (
    ChatCompletionChunk,
    ChatCompletionFunctionToolParam,
    ChatCompletionMessageFunctionToolCallParam,
    ChatCompletionMessageParam,
)
from openai.types.chat.chat_completion_chunk import ChoiceDeltaToolCall

from rag.ports import (
    AssistantTurn,
    ContextTooLong,
    Finished,
    ModelError,
    ModelEvent,
    ModelRefused,
    ModelTimeout,
    ModelUnavailable,
    SystemTurn,
    TextPiece,
    Tool,
    ToolCall,
    ToolTurn,
    Turn,
    Usage,
    UserTurn,
)

OPENAI_URL = "https://api.openai.com/v1"
CONNECT_SECONDS = 5.0
"A server that is up accepts within this time; a second attempt is better than a longer wait."
SILENCE_SECONDS = 60.0
"Reasoning models may think for as long before their first word."
MAX_RETRIES = 2
"The client waits 0.5 s, then 1 s, or as long as Retry-After says."


def openai_client(
    api_key: str,
    base_url: str | None = None,
    *,
    silence_seconds: float = SILENCE_SECONDS,
    max_retries: int = MAX_RETRIES,
) -> openai.AsyncOpenAI:
    """Make a client. An empty key is for servers that ask for none.

    It repeats a request that got no answer, 408, 409, 429 or 5xx, and nothing that has begun
    to stream. A null `base_url` is OpenAI itself, whatever the environment says.
    """
    return openai.AsyncOpenAI(
        api_key=api_key or "none",
        base_url=base_url or OPENAI_URL,
        timeout=httpx2.Timeout(silence_seconds, connect=CONNECT_SECONDS),
        max_retries=max_retries,
    )


class OpenAIModel:
    """A model that streams over HTTP.

    `silence_seconds` bounds two waits: that for the stream to begin, all attempts and the pauses
    between them included, and that from one sign of life to the next (a keep-alive is one).
    """

    def __init__(self, client: openai.AsyncOpenAI, name: str, *, silence_seconds: float) -> None:
        self._client = client
        self._name = name
        self._silence_seconds = silence_seconds

    @classmethod
    def connect(
        cls,
        *,
        api_key: str,
        base_url: str | None,
        model: str,
        silence_seconds: float = SILENCE_SECONDS,
        max_retries: int = MAX_RETRIES,
    ) -> "OpenAIModel":
        """Make a model from plain settings. No request is made yet."""
        client = openai_client(
            api_key, base_url, silence_seconds=silence_seconds, max_retries=max_retries
        )
        return cls(client, model, silence_seconds=silence_seconds)

    @property
    def name(self) -> str:
        return self._name

    async def close(self) -> None:
        await self._client.close()

    async def stream(
        self, turns: Sequence[Turn], tools: Sequence[Tool]
    ) -> AsyncGenerator[ModelEvent]:
        assembly = _ToolCalls()
        usage: Usage | None = None
        reason: str | None = None
        with _translated_errors():
            async with asyncio.timeout(self._silence_seconds):
                stream = await self._client.chat.completions.create(
                    model=self._name,
                    messages=[_message(turn) for turn in turns],
                    tools=[_tool(tool) for tool in tools] or openai.omit,
                    stream=True,
                    stream_options={"include_usage": True},
                )
            async with stream:
                async for chunk in stream:
                    usage = _usage(chunk) or usage
                    for choice in chunk.choices or ():
                        reason = choice.finish_reason or reason
                        if not choice.delta:  # some servers leave it out at the end
                            continue
                        if choice.delta.refusal:
                            raise ModelRefused("The model refused to answer.")
                        if choice.delta.content:
                            yield TextPiece(choice.delta.content)
                        for part in choice.delta.tool_calls or ():
                            assembly.add(part)
        if reason is None:
            raise ModelUnavailable("The model's stream ended without a finish_reason.")
        if reason == "content_filter":
            raise ModelRefused("The provider's content filter ended the reply.")
        calls = assembly.whole()
        for call in calls:
            yield call
        if usage:
            yield usage
        # Ollama and others say "stop" after tool calls too.
        yield Finished("tool_calls" if calls else "length" if reason == "length" else "stop")


def _message(turn: Turn) -> ChatCompletionMessageParam:
    match turn:
        case SystemTurn(content):
            return {"role": "system", "content": content}
        case UserTurn(content):
            return {"role": "user", "content": content}
        case AssistantTurn(content, tool_calls) if tool_calls:
            calls = [_call_param(call) for call in tool_calls]
            return {"role": "assistant", "content": content or None, "tool_calls": calls}
        case AssistantTurn(content):
            return {"role": "assistant", "content": content}
        case ToolTurn(call_id, content):
            return {"role": "tool", "tool_call_id": call_id, "content": content}
        case _:
            assert_never(turn)


def _call_param(call: ToolCall) -> ChatCompletionMessageFunctionToolCallParam:
    """Say again what the model called. vLLM answers 500 to arguments that are no JSON object."""
    try:
        arguments = json.loads(call.arguments)
    except (ValueError, RecursionError):
        arguments = None
    readable = json.dumps(arguments if isinstance(arguments, dict) else {})
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": readable},
    }


def _tool(tool: Tool) -> ChatCompletionFunctionToolParam:
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": dict(tool.parameters),
        },
    }


def _usage(chunk: ChatCompletionChunk) -> Usage | None:
    if not chunk.usage:
        return None
    return Usage(chunk.usage.prompt_tokens or 0, chunk.usage.completion_tokens or 0)


@dataclass(slots=True)
class _PartialCall:
    id: str
    name: str = ""
    arguments: str = ""


class _ToolCalls:
    """Puts tool calls together from their pieces.

    OpenAI sends id and name once, and everything after by index. Others leave out the index or
    the id, repeat the name, or (Gemini) give every call the index 0.
    """

    def __init__(self) -> None:
        self._calls: list[_PartialCall] = []
        self._by_index: dict[int, _PartialCall] = {}

    def add(self, part: ChoiceDeltaToolCall) -> None:
        index = cast("int | None", part.index)
        name = (part.function and part.function.name) or ""
        call = self._belongs_to(index, part.id, name)
        if call is None:
            call = _PartialCall(part.id or "")
            self._calls.append(call)
        if index is not None:
            self._by_index[index] = call
        call.id = call.id or part.id or ""
        if name != call.name:
            call.name += name
        call.arguments += (part.function and part.function.arguments) or ""

    def whole(self) -> list[ToolCall]:
        return [
            ToolCall(call.id or f"call_{uuid4().hex}", call.name, call.arguments)
            for call in self._calls
            if call.name
        ]

    def _belongs_to(self, index: int | None, id: str | None, name: str) -> _PartialCall | None:
        if index is not None:
            call = self._by_index.get(index)
        else:
            call = self._calls[-1] if self._calls else None
            if call and name and not id and call.arguments:
                return None
        if call and id and call.id and id != call.id:
            return None
        return call


# --- what goes wrong ------------------------------------------------------------------

_TOO_LONG = re.compile(r"context_length|context length|context size|prompt is too long", re.I)
"OpenAI's code, and what vLLM, llama.cpp and gateways to Anthropic write instead."
_REFUSED = frozenset({"content_filter", "content_policy_violation"})


@contextmanager
def _translated_errors() -> Generator[None]:
    try:
        yield
    except openai.APITimeoutError:
        raise ModelTimeout("The model's server stayed silent.") from None
    except TimeoutError:
        raise ModelTimeout("The model's server did not begin to answer in time.") from None
    except openai.APIError as error:
        raise _translated(error) from None
    except (ValueError, TypeError, AttributeError) as error:
        # The client builds chunks from whatever JSON comes, unchecked.
        raise ModelUnavailable("The model's server sent what is no completion chunk.") from error


def _translated(error: openai.APIError) -> ModelError:
    if _TOO_LONG.search(f"{error.code} {error.type} {error.message}"):
        return ContextTooLong("The conversation is longer than the model can read.")
    if error.code in _REFUSED:
        return ModelRefused("The provider's content filter refused the prompt.")
    return ModelUnavailable(f"The model's server failed: {failure(error)}.")


def failure(error: openai.APIError) -> str:
    """Describe an error for the log in words of our own.

    What servers and the HTTP library write may quote the key or the prompt, which is also why
    nothing is raised `from` these errors.
    """
    match error:
        case openai.APITimeoutError():
            return "it stayed silent"
        case openai.APIConnectionError():
            return f"no connection ({type(error.__cause__).__name__})"
        case openai.APIStatusError():
            what = f"HTTP {error.status_code}"
        case _:
            what = "an error in the stream"
    code = error.code or error.type or ""
    return f"{what} ({code})" if re.fullmatch(r"[a-z_]{1,40}", code) else what
