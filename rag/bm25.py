"""Text as sparse vectors: BM25's term weights, computed here, finished by the index's IDF.

The English setting of the engine's own `Bm25` (words, Snowball stems, stopwords; k 1.2,
b 0.75, and its mean length of 256) is kept. Three things are done to the text beforehand:

- NFKC, so that PDF ligatures, full-width forms and decomposed accents meet what people type;
  accents themselves are folded by the engine ("Größe" is found by "grosse");
- names joined by underscores are indexed whole beside their parts, as Lucene's
  WordDelimiterGraphFilter does with `catenateAll`: the engine cuts `work_mem` into two common
  words, and whoever types the name means the name;
- scripts that put no spaces between words become overlapping pairs of characters, as in
  Lucene's CJKAnalyzer, because the engine takes a run of Chinese for one word. A document keeps
  its single characters too, for one-character queries.

What each is worth, and what else was tried: `benchmarks/retrieval/README.md`.

The engine's multilingual tokenizer was tried: it cuts the same Japanese word differently in a
query and in a sentence, so that the one doesn't find the other, and it changes English tokens.
"""

import re
import unicodedata

from qdrant_edge import Bm25, Bm25Config, SparseVector

_BM25 = Bm25(Bm25Config(language="english", ascii_folding=True))

_NAME = re.compile(r"(?<![^\W_])[^\W_]++(?:_++[^\W_]++)++")
# Possessive, and begun at the start of a run only, so that long runs take linear time.

_UNSPACED = re.compile(
    "["
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u3005\u3040-\u30ff\u31f0-\u31ff"  # kana, and the iteration mark of kanji
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\uac00-\ud7af"  # Hangul: spaced, but with its particles attached
    "]+"
)


def document_weights(text: str) -> SparseVector:
    """Weigh the terms of a document. Empty where it has none."""
    return _BM25.embed_document(_prepared(text, singles=True))


def query_weights(text: str) -> SparseVector | None:
    """Weigh the terms of a query, each once; null where it has none (empty, only stopwords)."""
    weights = _BM25.embed_query(_prepared(text, singles=False))
    return weights if weights.indices else None


def _prepared(text: str, *, singles: bool) -> str:
    # A model's tool arguments may hold lone surrogates, which the engine can't take.
    encodable = text.encode(errors="replace").decode()

    def pairs(run: re.Match[str]) -> str:
        # Vowel signs and tone marks would cut words where they stand.
        letters = "".join(filter(str.isalnum, run[0]))
        grams = [letters[i : i + 2] for i in range(len(letters) - 1)]
        if singles or not grams:
            grams.extend(letters)
        return f" {' '.join(grams)} "

    text = unicodedata.normalize("NFKC", encodable)
    text = _NAME.sub(lambda name: f"{name[0]} {name[0].replace('_', '')}", text)
    return _UNSPACED.sub(pairs, text)
