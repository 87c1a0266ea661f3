from furu import Furu, run_local


class Tokens(Furu[list[str]]):
    text: str

    def _create(self) -> list[str]:
        return self.text.split()


class Vocabulary(Furu[dict[str, int]]):
    sources: tuple[Tokens, ...]

    def _create(self) -> dict[str, int]:
        words = [word for source in self.sources for word in source.get()]
        return {word: words.count(word) for word in sorted(set(words))}


vocabulary = Vocabulary(sources=(Tokens(text="a b"), Tokens(text="b c")))
for attempt in ("first", "second"):
    report = run_local([vocabulary])
    print(f"{attempt} run: computed {report.computed}, reused {report.reused}")
print(vocabulary.get())
