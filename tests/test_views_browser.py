"""A browser opens a page of all views without a network: everything is drawn, nothing fails, no text becomes HTML."""

import html
import re
import shutil
import subprocess

import pytest

import mwork_lens as mw
from mwork_lens.views import attention_view, edit_view, lens_view, neuron_view, page, top_tokens_view

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (docs/quarantine.md)"),
]

HOSTILE = (
    '<img src=x onerror="document.body.dataset.hacked=1"> </script><script>document.body.dataset.hacked=1</script>'
)
SCRIPTS = {"en": "Lena", "ru": "Привет", "zh": "莱娜的汽车", "hi": "नमस्ते", "th": "สวัสดี", "ar": "مرحبا"}
WATCH = """<script>
window.problems = [];
const note = text => { window.problems.push(text); if (document.body) document.body.dataset.problems = window.problems.join(" | "); };
addEventListener("error", event => note("error: " + event.message), true);
addEventListener("unhandledrejection", event => note("rejected: " + event.reason));
addEventListener("securitypolicyviolation", event => note("request: " + event.blockedURI));
for (const level of ["error", "warn"]) {
  const old = console[level];
  console[level] = (...all) => { note(level + ": " + all.join(" ")); old(...all); };
}
</script>"""


def dom(text, path):
    """The document after its scripts have run, with no way to any host."""
    path.write_text(text, encoding="utf-8")
    command = [
        str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--disable-features=IsolateSandboxedIframes", "--virtual-time-budget=3000",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={path.parent / 'profile'}", "--window-size=1200,3000", "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=True)
    return done.stdout


def body(found):
    """The body without scripts and styles."""
    return re.sub(r"<(script|style)\b.*?</\1>", "", found[found.index("<body") :], flags=re.DOTALL)


@pytest.fixture(scope="module")
def views():
    model = mw.load_model("organism")
    neurons = mw.NeuronSet.of([("ffn", 2, 5), ("ffn", 6, 167)], {"ffn": (8, mw.sites.width(model, "ffn"))})
    labels = mw.token_languages(model, mw.load_corpora("organism", ["en", "zh"], limit=20))
    text = f"{HOSTILE} {' '.join(SCRIPTS.values())}"
    corpora = {"en": mw.Corpus("en", (HOSTILE,)), "zh": mw.Corpus("zh", (SCRIPTS["zh"],))}
    return [
        lens_view(model, text, labels, layers=[0, 8], positions=200, title="<b>lens</b>"),
        neuron_view(model, {"hi": text, "<i>": HOSTILE}, neurons),
        top_tokens_view(model, {"zh": neurons}, corpora, k=60),
        attention_view(model, HOSTILE, [(0, 1), (3, 2)]),
        edit_view(model, text, mw.zero(neurons)),
    ]


@pytest.fixture(scope="module")
def shown(views, tmp_path_factory):
    text = page(views, "All <b>views</b>").replace("<head>", f"<head>{WATCH}", 1)
    return dom(text, tmp_path_factory.mktemp("browser") / "all.html")


def test_everything_is_drawn_and_nothing_fails(shown):
    assert "data-problems" not in shown, re.search(r'data-problems="([^"]*)"', shown)[1]
    drawn = body(shown)
    assert drawn.count('<section class="mw-view"') == 5
    assert drawn.count("<canvas") == 3  # two small maps and a large one
    assert drawn.count('class="colored-tokens"') == 3
    assert "Topk" in drawn
    assert "without edit" in drawn
    assert "ffn layer 6 unit 167" in drawn


def test_a_failure_would_be_noticed(views, tmp_path):
    """Negative control: a component without its data, an image from outside, and tokens that are HTML."""
    text = page(views[3:4]).replace("<head>", f"<head>{WATCH}", 1)
    bad = text.replace('"attention":', '"other":', 1).replace("</body>", '<img src="https://example.org/x.png"></body>')
    found = dom(bad, tmp_path / "bad.html")
    problems = re.search(r'data-problems="([^"]*)"', found)[1]
    assert "error: Uncaught TypeError" in problems
    assert "request: https://example.org/x.png" in problems


def test_no_text_becomes_html(shown):
    drawn = body(shown)
    assert "data-hacked" not in shown
    assert "<img" not in drawn
    assert not re.search(r"<(b|i)>", drawn)
    assert "All &lt;b&gt;views&lt;/b&gt;" in drawn
    assert shown.count("<script>CircuitsVis.render(") == shown.count("CircuitsVis.render(") == 4  # one a component


def test_six_scripts_are_there_as_characters(shown):
    lens, neurons, top, _, edit = re.split(r'<section class="mw-view"', body(shown))[1:]
    for section in (lens, neurons, edit):
        text = html.unescape(re.sub(r"<[^>]+>", "\n", section)).replace("\u00a0", " ")
        for language, word in SCRIPTS.items():
            for character in word:
                assert character in text, (language, character)
        assert "\ufffd" not in text
    assert "नमस्ते"[0] + " 1/3" in html.unescape(edit).replace("\u00a0", " ")
    assert "莱" in top or "娜" in top or "text: Chinese (zh)" in top


def test_the_frame_of_a_notebook_draws_too(views, tmp_path):
    """The frame has an origin of its own, so it reports by message what it has drawn."""
    report = '<script>setInterval(() => parent.postMessage(document.querySelectorAll(".colored-tokens").length, "*"), 300)</script></body>'
    listen = '<body><script>addEventListener("message", event => document.body.dataset.drawn = event.data)</script>'
    frame = views[1]._repr_html_()
    end = html.escape("</body>")
    assert frame.count(end) == 1
    found = dom(f'<meta charset="utf-8">{listen}{frame.replace(end, html.escape(report))}', tmp_path / "frame.html")
    assert 'data-drawn="2"' in found
