"""The demo page with Gradio; no data leaves the machine."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from markupsafe import escape
from starlette.responses import FileResponse
from starlette.routing import Route

from ..core.errors import UserError
from ..evaluation.page import TEMPLATES
from .demo import Demo, act, review_html
from .demo_recalibration import recalibrate
from .questions import Question
from .review_sheet import ReviewSheet

# Gradio reads these when it is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr

REPORT = "report"


def build_page(demo: Demo, sheet: ReviewSheet | None = None) -> gr.Blocks:
    """Build the page.

    Args:
        demo: models to try.
        sheet: sheet of the queue to review; None hides that tab.
    """
    names = " and ".join(demo.models)
    with gr.Blocks(analytics_enabled=False, title=f"umls_reranker: {names}") as page:
        report = f' · <a href="{REPORT}" target="_blank">evaluation report</a>' if _report(demo) else ""
        gr.HTML(f'<div class="reranker"><p><b>umls_reranker</b> · {escape(names)}{report}</p></div>')
        with gr.Tab("Try it"):
            _try_tab(demo)
        if sheet is not None:
            with gr.Tab("Review"):
                _review_tab(demo, sheet)
    return page


def launch(page: gr.Blocks, demo: Demo, **options: Any) -> None:
    """Serve the page until the process ends.

    Args:
        page: the page.
        demo: as for `build_page`.
        options: options of `gradio.Blocks.launch`, such as ``server_name`` and ``server_port``.
    """
    report = _report(demo)
    routes = [Route(f"/{REPORT}", lambda request: FileResponse(report))] if report else []
    font = ["system-ui", "sans-serif"]
    page.launch(
        share=False,
        ssr_mode=False,
        enable_monitoring=False,
        footer_links=[],
        app_kwargs={"routes": routes},
        css=(TEMPLATES / "demo.css").read_text(encoding="utf-8"),
        # The default themes load fonts from the web.
        theme=gr.themes.Base(font=font, font_mono=["ui-monospace", "monospace"]),
        **options,
    )


def _report(demo: Demo) -> Path | None:
    path = demo.run and demo.run / "report" / "report.html"
    return path if path and path.is_file() else None


def _try_tab(demo: Demo) -> None:
    hierarchy = demo.hierarchy
    types = sorted((f"{hierarchy.name(kind)} ({kind})", kind) for kind in hierarchy)
    examples = demo.examples()
    first = examples[0]
    start = gr.State(None)
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            text = gr.Textbox(first.text, label="Text (select a mention in it)", lines=5, elem_id="text")
        with gr.Column(scale=1, min_width=280):
            mention = gr.Textbox(first.mention, label="Mention", elem_id="mention")
            kinds = gr.Dropdown(
                types,
                value=list(first.types),
                multiselect=True,
                label="Semantic types of the mention, if known",
                elem_id="types",
            )
    pasted = gr.Textbox(
        first.candidates,
        label="Candidates",
        info=_how_to_paste(demo),
        lines=4,
        max_lines=12,
        visible=demo.linker is None,
        elem_id="candidates",
    )
    ask = gr.Button("Rank candidates", variant="primary", elem_id="ask")
    opening = ""
    # The page also opens if the first example cannot be ranked.
    with suppress(ValueError):
        opening = demo.answer(first)
    answers = gr.HTML(opening, elem_id="answers", render=False)
    boxes = [text, mention, kinds, pasted, start]

    def selected(event: gr.SelectData) -> tuple[Any, Any]:
        return (event.value, event.index[0]) if event.value and event.value.strip() else (gr.skip(), gr.skip())

    def answer(text: str, mention: str, types: list[str], pasted: str, start: int | None = None) -> list[Any]:
        # An empty box gives None.
        question = Question(text or "", mention or "", types or [], pasted or "", start)
        question = _said(question.unpacked, hierarchy) if demo.linker is None else question
        return [_said(demo.answer, question), *question]

    rows = [[example.text, example.mention, list(example.types), example.candidates] for example in examples]
    gr.Examples(
        rows,
        boxes[:4],
        [answers, *boxes],
        answer,
        cache_examples=False,
        label="Examples",
        example_labels=[example.mention for example in examples],
        run_on_click=True,
        api_visibility="private",
        visible=len(rows) > 1,
    )
    answers.render()
    text.select(selected, None, [mention, start], show_progress="hidden", api_visibility="private")
    gr.on([ask.click, mention.submit], answer, boxes, [answers, *boxes], api_visibility="private")


def _how_to_paste(demo: Demo) -> str:
    """Help for the box of candidates, with the scores that the models read."""
    scores = "".join(f', "{name}_score": …' for name in demo.reranker.calibration.score_ranges)
    synthetic = " The scores in the example are synthetic." if scores and not demo.lists else ""
    candidate = f'{{"name": "Common Cold", "cui": "C0009443"{scores}}}'
    return (
        f"One per line, as name | CUI | type; type, or as a JSON object, which may contain scores: {candidate}. "
        f'Or paste one row of your lists: {{"mention": …, "candidates": […]}}.{synthetic}'
    )


def _review_tab(demo: Demo, sheet: ReviewSheet) -> None:
    hierarchy = demo.hierarchy
    script = (TEMPLATES / "demo.js").read_text(encoding="utf-8")

    def current() -> tuple[str, int | None]:
        position = sheet.position
        return review_html(sheet, hierarchy, position), position

    review = gr.HTML(lambda: current()[0], js_on_load=script, elem_id="review")
    # Position of the mention on this page; another page may have answered it.
    on_page = gr.State(lambda: sheet.position)
    with gr.Group():
        other = gr.Textbox(label="CUI of another concept", elem_id="other", max_lines=1)
        take = gr.Button("Choose this CUI", elem_id="take")
    fit = gr.Button("Recalibrate with these corrections", elem_id="recalibrate", visible=demo.can_recalibrate)
    compared = gr.HTML(elem_id="compared")

    def pressed(event: gr.EventData) -> tuple[str, int | None]:
        _said(act, sheet, getattr(event, "position", None), str(getattr(event, "choice", None)))
        return current()

    def typed(cui: str, position: int | None) -> tuple[str, int | None, str]:
        if position is not None:
            _said(sheet.choose, position, cui)
        return *current(), ""

    options: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    review.submit(pressed, None, [review, on_page], **options)
    gr.on([take.click, other.submit], typed, [other, on_page], [review, on_page, other], **options)
    fit.click(lambda: _said(recalibrate, demo, sheet), None, compared, api_visibility="private")


def _said(function: Any, *values: Any) -> Any:
    """Result of a function; errors that users can fix are shown on the page."""
    try:
        return function(*values)
    except (UserError, ValueError) as error:
        raise gr.Error(str(escape(str(error))), print_exception=False) from None
