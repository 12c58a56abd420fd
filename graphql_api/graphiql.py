"""GraphiQL, opened with an example that works and an identity of the browser's own.

Its assets are served from `graphql_api/static` where `make assets` has put them (it needs
npm), else the browser fetches the same files from a CDN, checked by their hashes.
"""

from functools import cache
from html import escape
from pathlib import Path
from typing import NamedTuple

STATIC = Path(__file__).parent / "static"
STATIC_URL = "/graphql/assets"


class Asset(NamedTuple):
    """A file of an npm package, by its path there. `integrity` is its SHA-384."""

    path: str
    integrity: str

    @property
    def local(self) -> Path:
        return STATIC / self.path.rpartition("/")[2]

    def attributes(self, name: str) -> str:
        """Give the attributes of a tag whose address is `name` (src or href)."""
        if self.local.exists():
            return f'{name}="{STATIC_URL}/{escape(self.local.name)}"'
        address = f"https://unpkg.com/{self.path}"
        return f'crossorigin="anonymous" integrity="{self.integrity}" {name}="{address}"'


REACT = Asset(
    "react@18.2.0/umd/react.production.min.js",
    "sha384-tMH8h3BGESGckSAVGZ82T9n90ztNXxvdwvdM6UoR56cYcf+0iGXBliJ29D+wZ/x8",
)
REACT_DOM = Asset(
    "react-dom@18.2.0/umd/react-dom.production.min.js",
    "sha384-bm7MnzvK++ykSwVJ2tynSE5TRdN+xL418osEVF2DE/L/gfWHj91J2Sphe582B1Bh",
)
GRAPHIQL = Asset(
    "graphiql@3.8.3/graphiql.min.js",
    "sha384-HbRVEFG0JGJZeAHCJ9Xm2+tpknBQ7QZmNlO/DgZtkZ0aJSypT96YYGRNod99l9Ie",
)
GRAPHIQL_CSS = Asset(
    "graphiql@3.8.3/graphiql.min.css",
    "sha384-Mq3vbRBY71jfjQAt/DcjxUIYY33ksal4cgdRt9U/hNPvHBCaT2JfJ/PTRiPKf0aM",
)

EXAMPLE = """\
# Welcome to Parley.
#
# Your browser has made itself a random X-Session-ID
# (below, under Headers): whoever sends it is you.
#
# Press play, and ask the documents that are there.

mutation Ask {
  sendMessage(input: {
    content: "What happens to a reply when its client goes away?"
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

# The same, as it is written. To ask again, change the messageId.
subscription Stream {
  sendMessage(input: {
    messageId: "%MESSAGE_ID%"
    content: "How do I resume a reply?"
  }) {
    ... on ReplySearched { query }
    ... on ReplyDelta { offset text }
    ... on ReplyEnded { reply { status content } }
    ... on ReplyRejected { error { message } }
  }
}

# What you said, and what you were told. It is still there tomorrow.
query History {
  sessions(first: 5) {
    edges {
      node {
        title
        messageCount
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


@cache
def graphiql_page() -> str:
    """Give the page."""
    template = (Path(__file__).parent / "graphiql.html").read_text(encoding="utf-8")
    values = {
        "%GRAPHIQL_CSS%": GRAPHIQL_CSS.attributes("href"),
        "%REACT%": REACT.attributes("src"),
        "%REACT_DOM%": REACT_DOM.attributes("src"),
        "%GRAPHIQL%": GRAPHIQL.attributes("src"),
        "%EXAMPLE%": escape(EXAMPLE, quote=False),
    }
    for name, value in values.items():
        template = template.replace(name, value)
    return template
