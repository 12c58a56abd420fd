"""GraphiQL, opened with examples that work and an identity of the browser's own.

Its files are served from `graphql_api/static` where `make assets` has put them (it needs
npm), else the browser fetches the same files from a CDN, checked by their hashes.
"""

import base64
import hashlib
import json
from functools import cache
from html import escape
from pathlib import Path

from graphql_api import static_assets

STATIC = static_assets.STATIC
STATIC_URL = "/graphql/assets"
CDN_URL = "https://unpkg.com"

EXAMPLE = """\
# Welcome to Parley.
#
# Your browser has made itself a random X-Session-ID
# (below, under Headers): whoever sends it is you.
# An Authorization header with a token goes there too.
#
# Press play, and ask the documents that are there.
mutation Ask {
  sendMessage(input: {
    content: "What happens when a client goes away?"
  }) {
    __typename
    ... on SendMessageSuccess {
      session { id title }
      reply {
        status
        content
        citations { marker title snippet }
      }
    }
    ... on UserError { message }
  }
}

# A reply as it is written, piece by piece. Once more,
# the same is replayed: ask anew by another messageId.
subscription Stream {
  sendMessage(input: {
    messageId: "%MESSAGE_ID%"
    content: "How do I resume a reply?"
  }) {
    __typename
    ... on ReplyStarted { reply { id status } }
    ... on ReplySearched { query }
    ... on ReplyDelta { offset text }
    ... on ReplyEnded { reply { id status content } }
    ... on ReplyRejected { error { message } }
  }
}

# What you said, and what you were told. It is still
# there tomorrow.
query History {
  sessions(first: 5) {
    totalCount
    edges {
      node {
        id
        title
        messages(last: 10) {
          edges { node { role status content createdAt } }
        }
      }
    }
  }
}

# What the answers are made of.
query Documents {
  documents(first: 20) {
    totalCount
    edges { node { title status chunkCount visibility } }
  }
}
"""
"What the first tab holds, in lines that its half of a small screen shows whole."


def _style_hash(style: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'"


_DIALOG_STYLES = " ".join(map(_style_hash, ("width: 10em", "color: #888")))
"""The only style attributes that are ever read from HTML: those of the editor's "Jump to line".

Browsers call it unsafe to allow even attributes of known content; all others stay forbidden.
"""


def graphiql_page(nonce: str, *, takes_keys: bool = True) -> str:
    """Give the page. The nonce is one that nobody can guess, new for each answer.

    With `takes_keys` the identity is filled in: a key of the browser's own.
    """
    page = _template(STATIC).replace("%TAKES_KEYS%", json.dumps(takes_keys))
    return page.replace("%NONCE%", escape(nonce))


def graphiql_headers(nonce: str) -> dict[str, str]:
    """Give the headers that the page is sent with, the same nonce in them."""
    return {
        "Content-Security-Policy": content_security_policy(nonce),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        # From a cache the nonce would be an old one, which is no secret any more.
        "Cache-Control": "no-store",
    }


def content_security_policy(nonce: str) -> str:
    """Let the page load what has the nonce, talk to this server, and do nothing else.

    The CDN is not named: its files are let in by the nonce on their tags, and held to their
    hashes there. Nothing is evaluated from strings.
    """
    policy = {
        "default-src": "'none'",
        "script-src": f"'nonce-{nonce}'",
        "style-src": f"'nonce-{nonce}'",
        "style-src-attr": f"'unsafe-hashes' {_DIALOG_STYLES}",
        # GraphiQL's fonts and CodeMirror's marks lie in the style sheet.
        "font-src": "data:",
        "img-src": "data:",
        # The WebSocket of the same origin too.
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {sources}" for name, sources in policy.items())


@cache
def _template(static: Path) -> str:
    """Give the page without its nonce."""
    template = (Path(__file__).parent / "graphiql.html").read_text(encoding="utf-8")
    for package, files in static_assets.FILES.items():
        for path, integrity in files.items():
            name = path.rpartition("/")[2]
            template = template.replace(
                f"%{name}%", _attributes(static / name, f"{CDN_URL}/{package}/{path}", integrity)
            )
    # In a script element a `<` could end it.
    return template.replace("%EXAMPLE%", json.dumps(EXAMPLE).replace("<", "\\u003c"))


def _attributes(local: Path, address: str, integrity: str) -> str:
    """Give the attributes of a tag that loads a file."""
    name = "href" if local.suffix == ".css" else "src"
    if local.exists():
        return f'{name}="{STATIC_URL}/{local.name}"'
    return f'{name}="{address}" integrity="{integrity}" crossorigin="anonymous"'
