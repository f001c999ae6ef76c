"""Text in pictures: rapidocr on pictures drawn here, and what it adds to what a language model has read."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from promptglass import ocr
from promptglass.analyzers import OcrAnalyzer
from promptglass.cli import main
from promptglass.errors import DependencyMissing, ModelError
from promptglass.images import open_picture
from promptglass.ocr import Line, Reader, load_reader, reader_name
from promptglass.readings import merged
from promptglass.terminal import table


def font(size: int) -> ImageFont.FreeTypeFont:
    try:
        return ImageFont.load_default(size)
    except TypeError:  # before Pillow 10.1
        return ImageFont.truetype("DejaVuSans.ttf", size)


def drawn(size: tuple[int, int], *texts: tuple[int, int, str], height: int = 32) -> Image.Image:
    """Texts at x, y, black on white."""
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for x, y, text in texts:
        draw.text((x, y), text, fill="black", font=font(height))
    return image


def texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


@pytest.fixture(scope="module")
def reader() -> Reader:
    pytest.importorskip("rapidocr")
    pytest.importorskip("onnxruntime")
    return load_reader()


# Reading.


def test_lines_from_top_to_bottom_and_where_they_are(reader: Reader) -> None:
    lines = reader.read(
        drawn((500, 300), (40, 210, "Open 24 hours"), (60, 120, "Menu"), (20, 20, "Hello World"))
    )
    assert texts(lines) == ["Hello World", "Menu", "Open 24 hours"]
    for line, (x, y) in zip(lines, [(20, 20), (60, 120), (40, 210)], strict=True):
        assert line.confidence > 0.9
        left, top, width, height = line.box
        assert abs(left - x) < 10 and abs(top - y) < 15 and 20 < height < 60
        assert abs(width - font(32).getlength(line.text)) < 25
        assert [type(number) for number in line.box] == [int] * 4
    assert re.fullmatch(r"rapidocr \d+\.\d+.*", reader.name)


def test_two_columns_are_read_row_by_row(reader: Reader) -> None:
    left = [(20, 20, "left one"), (20, 100, "left two")]
    right = [(320, 14, "right one"), (320, 107, "right two")]  # a little higher, a little lower
    assert texts(reader.read(drawn((600, 180), *right, *left))) == [
        "left one", "right one", "left two", "right two"
    ]  # fmt: skip


def test_nothing_is_read_where_nothing_is_written(reader: Reader) -> None:
    assert reader.read(Image.new("RGB", (300, 200), "teal")) == []


@pytest.mark.parametrize("size", [(1, 1), (15, 15), (1, 2000), (2000, 1), (60_000, 3), (3, 60_000)])
def test_no_shape_is_too_odd(reader: Reader, size: tuple[int, int]) -> None:
    assert reader.read(Image.new("RGB", size, "grey")) == []


def test_a_large_picture_is_read_smaller_and_boxes_are_its_own(reader: Reader) -> None:
    (line,) = reader.read(drawn((6000, 4000), (3000, 2000, "Hello World"), height=120))
    assert line.text == "Hello World"
    assert abs(line.box[0] - 3000) < 40 and abs(line.box[1] - 2000) < 60
    assert abs(line.box[2] - font(120).getlength("Hello World")) < 80


def test_what_is_read_is_bounded_and_keeps_its_shape() -> None:
    assert ocr._fitting(640, 480) == (640, 480)
    width, height = ocr._fitting(6000, 4000)
    assert 1_490_000 < width * height <= 1_500_000 and abs(width / height - 1.5) < 0.01
    assert ocr._fitting(60_000, 3) == (600, 3) and ocr._fitting(1, 2000) == (1, 200)
    assert ocr._fitting(10**9, 1) == (200, 1)


def test_a_long_strip_stays_legible(reader: Reader) -> None:
    said = [f"Line number {number}" for number in range(1, 9)]
    strip = drawn((260, 5700), *((20, 700 * row + 40, text) for row, text in enumerate(said)), height=18)
    assert texts(reader.read(strip)) == said


def test_what_it_is_not_sure_of_is_left_out(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = drawn((300, 80), (20, 20, "Hello World"))
    monkeypatch.setattr(ocr, "MIN_CONFIDENCE", 1.01)
    assert load_reader().read(picture) == []
    assert texts(reader.read(picture)) == ["Hello World"]


def test_threads_may_share_it(reader: Reader) -> None:
    said = ["alpha", "beta", "gamma", "delta"] * 3
    pictures = [drawn((220, 80), (20, 20, word)) for word in said]
    with ThreadPoolExecutor(4) as threads:
        assert [texts(lines) for lines in threads.map(reader.read, pictures)] == [[word] for word in said]


def test_one_picture_at_a_time(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    at_work = []

    def engine(image: Image.Image) -> SimpleNamespace:
        at_work.append(reader._lock.locked())
        return SimpleNamespace()  # as where the detector finds something and nothing is recognized

    monkeypatch.setattr(reader, "_engine", engine)
    assert reader.read(drawn((9, 9))) == [] and at_work == [True]


_LEAVES_THE_PROCESS_ALONE = """
import json, logging, os, socket, sys, warnings
import numpy, requests, tqdm  # what we need anyway sets its own filters
from PIL import Image

def no(*arguments, **options):
    raise RuntimeError("somebody asked the network")

socket.socket.connect = socket.getaddrinfo = socket.create_connection = no
logging.getLogger("promptglass").addHandler(logging.NullHandler())

def state():
    loggers = [logging.getLogger(), logging.getLogger("promptglass")]
    handling = [(one.level, one.propagate, [str(handler) for handler in one.handlers]) for one in loggers]
    filters = [str(filter) for filter in warnings.filters]
    return [handling, logging.root.manager.disable, dict(os.environ), list(sys.path), filters]

before = state()
from promptglass.ocr import load_reader
reader = load_reader()
found = [line.text for line in reader.read(Image.open(sys.argv[1]))]
nothing = reader.read(Image.new("RGB", (99, 99)))
print(json.dumps([found, nothing, [pair for pair in zip(before, state()) if pair[0] != pair[1]]]))
"""


@pytest.mark.parametrize("environment", [{}, {"LD_LIBRARY_PATH": "/opt/lib"}])
def test_the_network_is_not_asked_and_the_process_stays_as_it_was(
    reader: Reader, tmp_path: Path, environment: dict[str, str]
) -> None:
    drawn((300, 80), (20, 20, "Hello World")).save(tmp_path / "hello.png")
    command = [sys.executable, "-c", _LEAVES_THE_PROCESS_ALONE, str(tmp_path / "hello.png")]
    ours = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ours | environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout) == [["Hello World"], [], []]


def test_torch_keeps_its_threads(reader: Reader) -> None:
    torch = pytest.importorskip("torch")
    before = (torch.get_num_threads(), torch.get_num_interop_threads(), logging.root.handlers[:])
    load_reader().read(drawn((300, 80), (20, 20, "Hello World")))
    assert (torch.get_num_threads(), torch.get_num_interop_threads(), logging.root.handlers) == before


def test_the_models_are_those_of_the_wheel(reader: Reader) -> None:
    models = ocr._models()
    shipped = {str(file.locate()) for file in metadata.files("rapidocr") or ()}
    assert sorted(models) == ["Cls.model_path", "Det.model_path", "Rec.model_path"]
    assert {*models.values()} <= shipped and all(Path(model).is_file() for model in models.values())


def test_a_damaged_model_is_reported_and_not_fetched_again(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"not a model")
    monkeypatch.setattr(ocr, "_models", lambda: {"Det.model_path": str(damaged)})
    with pytest.raises(ModelError, match=r"^rapidocr \S+ failed: .*damaged\.onnx.* install it again\.$"):
        load_reader().read(drawn((300, 80), (20, 20, "Hello World")))


def test_without_its_models_it_says_so(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "files", lambda package: None)
    with pytest.raises(ModelError, match=r"it came without its models\. .* install it again\.$"):
        load_reader()


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(__spec__="there"))
    with pytest.raises(DependencyMissing) as missing:
        load_reader()
    said = str(missing.value)
    assert said.startswith("reading text without a language model needs an optional package: ")
    assert said.endswith(" -m pip install rapidocr")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DependencyMissing, match=r"pip install rapidocr onnxruntime$"):
        load_reader()


def test_its_name_is_known_without_loading_it(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys; from promptglass.ocr import reader_name; name = reader_name()\n"
        "print({'PIL', 'numpy', 'cv2', 'onnxruntime', 'rapidocr'} & {*sys.modules} or name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == reader_name()

    def absent(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", absent)
    assert reader_name() == "rapidocr"


def test_small_print_beside_a_headline_makes_rows_of_its_own() -> None:
    def line(text: str, x: int, y: int, height: int) -> Line:
        return Line(text, 0.9, (x, y, 100, height))

    page = [
        line("HEADLINE", 0, 0, 100), line("first", 203, 5, 20), line("second", 202, 50, 20),
        line("third", 201, 78, 20), line("foot", 0, 120, 30), line("note", 300, 125, 30),
    ]  # fmt: skip
    ordered = texts(ocr._in_reading_order(page[::-1]))
    assert ordered == ["first", "HEADLINE", "second", "third", "foot", "note"]


# The mode.


class FakeReader:
    name = "rapidocr 0.0"

    def read(self, image: Image.Image) -> list[Line]:
        return [Line("Open", 0.9, (1, 2, 3, 4)), Line("24\x1b[2Jh", 0.8, (5, 6, 7, 8))]


def test_the_mode_answers_with_lines_and_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ocr, "load_reader", FakeReader)
    drawn((40, 30)).save(tmp_path / "sign.png")
    assert main(["interrogate", str(tmp_path / "sign.png"), "--mode", "ocr", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    assert (answer["mode"], answer["text"], answer["model"]) == ("ocr", "Open\n24\x1b[2Jh", "rapidocr 0.0")
    assert answer["lines"][0] == {"text": "Open", "confidence": 0.9, "box": [1, 2, 3, 4]}

    picture = open_picture(tmp_path / "sign.png")
    answers = [found for _, found in OcrAnalyzer().analyze([picture], ["ocr"])]
    assert "ocr       Open / 24 [2Jh\n" in table(picture, answers, colour=False)


def test_the_mode_says_how_it_would_answer_and_what_is_missing(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyzer = OcrAnalyzer()
    assert analyzer.obstacles("ocr") == [] and analyzer.recipe("ocr").model == reader.name
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    assert analyzer.obstacles("ocr") == ["the reader of text is not installed (pip install rapidocr)"]


# Together with a language model.


def read(*seen: str) -> list[Line]:
    return [Line(text, 0.9, (0, 30 * row, 100, 20)) for row, text in enumerate(seen)]


def together(said: list[str], seen: list[str]) -> list[str]:
    """Each reading with who has read it: `=` both, `llm`, `ocr`."""
    by = {("llm", "ocr"): "=", ("llm",): "llm", ("ocr",): "ocr"}
    return [f"{by[reading.by]} {reading.text}" for reading in merged(said, read(*seen))]


@pytest.mark.parametrize(
    ("said", "seen", "expected"),
    [
        # the language model's spelling
        (["Hello, World!"], ["HELL0 WOR1D"], ["= Hello, World!"]),
        (["Café Étoile"], ["CafeEtoile"], ["= Café Étoile"]),
        (["Grand Opening"], ["Grand Openirg"], ["= Grand Opening"]),
        (["Grand Opening today"], ["Gand Openirg"], ["= Grand Opening today"]),
        (["STOP"], ["5T0P"], ["= STOP"]),
        # lines joined, lines split, parts
        (["GRAND OPENING TODAY"], ["GRAND", "OPENING", "TODAY"], ["= GRAND OPENING TODAY"]),
        (["GRAND", "OPENING", "TODAY"], ["GRAND OPENINGTODAY"], ["= GRAND", "= OPENING", "= TODAY"]),
        (["GRAND OPENING TODAY"], ["opening"], ["= GRAND OPENING TODAY"]),
        (["OPEN", "HOURS"], ["OPEN 24 HOURS"], ["= OPEN", "= HOURS", "ocr OPEN 24 HOURS"]),
        (["we open", "at nine"], ["open at nine"], ["= we open", "= at nine"]),
        # what one of them has read alone
        (["one", "three"], ["one", "two", "three", "four"], ["= one", "ocr two", "= three", "ocr four"]),
        (["two"], ["one", "two"], ["ocr one", "= two"]),
        (["a rumour", "two"], ["one", "two"], ["llm a rumour", "ocr one", "= two"]),
        (["seven"], ["eight", "nine"], ["llm seven", "ocr eight", "ocr nine"]),
        ([], ["b", "a"], ["ocr b", "ocr a"]),
        (["b", "a"], [], ["llm b", "llm a"]),
        # the model goes down the columns, OCR along the rows
        (
            ["left one", "left two", "right one", "right two"],
            ["left one", "right one", "small print", "left two", "right two"],
            ["= left one", "= left two", "= right one", "ocr small print", "= right two"],
        ),
        # short lines are whole words
        (["BANANA"], ["A"], ["llm BANANA", "ocr A"]),
        (["A CAT"], ["A"], ["= A CAT"]),
        (["1234"], ["12"], ["llm 1234", "ocr 12"]),
        (["12:30"], ["12"], ["= 12:30"]),
        (["exit"], ["edit"], ["llm exit", "ocr edit"]),
        # other words and other numbers are no small errors
        (["Monday closed"], ["Sunday closed"], ["llm Monday closed", "ocr Sunday closed"]),
        (["Coffee 3.50"], ["Coffee 3.50", "Coffee 3.80"], ["= Coffee 3.50", "ocr Coffee 3.80"]),
        (["Room of Mary"], ["Room 7 of Mary"], ["llm Room of Mary", "ocr Room 7 of Mary"]),
        # the same sign several times
        (["STOP", "go", "STOP", "STOP"], ["STOP", "STOP", "STOP"], ["= STOP", "llm go", "= STOP", "= STOP"]),
        (["STOP", "STOP"], ["STOP"], ["= STOP", "llm STOP"]),
        (["STOP"], ["STOP", "STOP"], ["= STOP"]),
        (["STOP HERE", "STOP THEN"], ["STOP", "STOP HERE"], ["= STOP HERE", "= STOP THEN"]),
        (["big sale", "sale"], ["sale"], ["llm big sale", "= sale"]),
        # any script, and none
        (["日本語テスト", "東京"], ["日本語", "テスト", "京都"], ["= 日本語テスト", "ocr 京都", "llm 東京"]),
        (["Привет, мир"], ["Привет мuр"], ["= Привет, мир"]),
        (["ﾃｽﾄ"], ["テスト"], ["= ﾃｽﾄ"]),
        (["?!", "♥"], ["?!", "★"], ["= ?!", "ocr ★", "llm ♥"]),
        (["", " ", "word"], ["\t", "word", ""], ["= word"]),
        ([], [" "], []),
    ],
)  # fmt: skip
def test_both_together(said: list[str], seen: list[str], expected: list[str]) -> None:
    assert together(said, seen) == expected


def letters(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())


def in_common(one: str, other: str) -> int:
    """How many letters of one come in the same order in the other."""
    row = [0] * (len(other) + 1)
    for letter in one:
        above = row
        row = [0]
        for place, another in enumerate(other):
            row.append(above[place] + 1 if letter == another else max(above[place + 1], row[-1]))
    return row[-1]


# Few words, so that lines meet; none that is told apart by what only the comparison knows (0 and O, accents).
WORDS = [
    "stop",
    "go",
    "open",
    "opens",
    "shop",
    "sale",
    "a",
    "77",
    "7",
    "73",
    "日本",
    "мир",
    "?",
    "cat",
    "catering",
]
LINES = st.lists(
    st.builds(
        lambda words, by: by.join(words),
        st.lists(st.sampled_from(WORDS), max_size=4),
        st.sampled_from([" ", "", ", "]),
    ),
    max_size=6,
)


@given(LINES, LINES)
def test_no_line_of_either_is_lost(said: list[str], seen: list[str]) -> None:
    readings = merged(said, read(*seen))
    assert [reading.text for reading in readings if "llm" in reading.by] == [
        line for line in said if line.strip()
    ]
    assert {reading.by for reading in readings} <= {("llm",), ("ocr",), ("llm", "ocr")}
    by_both = letters("".join(reading.text for reading in readings if len(reading.by) == 2))
    alone = Counter(reading.text for reading in readings if reading.by == ("ocr",))
    assert alone <= Counter(seen)
    for line in seen:
        if letters(line) and line not in alone:
            assert in_common(letters(line), by_both) >= 0.8 * len(letters(line))


@given(st.lists(st.text(max_size=30), max_size=5), st.lists(st.text(max_size=30), max_size=5))
def test_any_text_is_merged(said: list[str], seen: list[str]) -> None:
    readings = merged(said, read(*seen))
    assert [reading.text for reading in readings if "llm" in reading.by] == [
        line for line in said if line.strip()
    ]
    assert all(reading.text.strip() for reading in readings)


@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=5, unique=True))
def test_what_both_read_alike_is_said_once(lines: list[str]) -> None:
    written = [line for line in lines if line.strip()]
    assert together(lines, lines) == [f"= {line}" for line in written]
