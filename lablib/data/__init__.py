"""Data: sources → corpus → tokenizer → shards → packed windows, with provenance and counts at each step. No torch."""

from lablib.data.corpus import Corpus
from lablib.data.documents import Document
from lablib.data.loader import PackedDataset, Window

__all__ = ["Corpus", "Document", "PackedDataset", "Window"]
