"""Verdict: LLM judge, lexical judge, classifier, and judges made of others."""
