"""The demo in a real browser, at the width of a desktop and of a phone: both tabs, clicked through.

Needs Chromium and its driver from the distribution (Debian: chromium, chromium-driver). Screenshots stay in the
folder of `tmp_path`.
"""

import json
import shutil

import pytest
from tiny_reranker import tiny_reranker

pytestmark = pytest.mark.extra

EVIL = '<img src=x onerror="hacked=1"><script>hacked=1</script>${hacked=1}{{value}}'
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}


@pytest.fixture(params=WIDTHS)
def browser(request):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("Chromium and its driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    width, height = WIDTHS[request.param]
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", f"window-size={width},{height}"):
        options.add_argument(f"--{argument}")
    if request.param == "phone":
        metrics = {"width": width, "height": height, "pixelRatio": 2}
        options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    chrome.implicitly_wait(60)
    yield chrome
    chrome.quit()


@pytest.fixture
def served(tmp_path, monkeypatch):
    """The page of a tiny model in an evil queue, and where the choices go."""
    page_module = pytest.importorskip("umls_reranker.review.demo_page", reason="gradio is not installed")
    from umls_reranker.core.errors import UserError
    from umls_reranker.review.demo import Demo
    from umls_reranker.review.review_sheet import ReviewSheet

    candidates = [{"name": f"{EVIL} {number}", "cui": f"C000000{number}"} for number in range(1, 12)]
    ranked = [
        item | {"score": 0.5, "margin": 0.1, "logit": 0.0, "tier": "low", "accepted": False} for item in candidates
    ]
    rows = [
        {"entity": f"{EVIL}{n}", "left": f"{EVIL} ", "candidates": candidates, "ranked": ranked, "doc_id": EVIL}
        for n in range(3)
    ]
    queue, reviewed = tmp_path / "queue.jsonl", tmp_path / "reviewed.jsonl"
    queue.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run = tmp_path / "run"
    (run / "report").mkdir(parents=True)
    (run / "report" / "report.html").write_text("<title>The report</title>", encoding="utf-8")
    demo = Demo.open(str(tiny_reranker(tmp_path / "model")), device="cpu")
    demo.run = run

    def fitted(demo, sheet):
        if len(sheet.chosen) < 3:
            raise UserError(f"too few: {EVIL}")
        return "<table><tr><td>fitted</td></tr></table>"

    monkeypatch.setattr(page_module, "recalibrate", fitted)
    sheet = ReviewSheet(queue, reviewed)
    page = page_module.build_page(demo, sheet)
    page_module.launch(page, demo, prevent_thread_lock=True, server_name="127.0.0.1", quiet=True)
    yield page.local_url, sheet
    page.close()


def test_both_tabs_are_clicked_through(browser, served, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    url, sheet = served
    reviewed = sheet.reviewed

    def find(selector):
        return browser.find_element(By.CSS_SELECTOR, selector)

    def until(condition):
        WebDriverWait(browser, 60, ignored_exceptions=[Exception]).until(lambda _: condition())

    def press(key):
        find("body").send_keys(key)

    def look(name):
        """A screenshot; nothing is wider than the window."""
        browser.save_screenshot(str(tmp_path / f"{name}.png"))
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")

    def choices():
        lines = reviewed.read_text(encoding="utf-8").splitlines() if reviewed.exists() else []
        return [json.loads(line)["chosen"] for line in lines]

    browser.get(url)
    # The first example is ranked already.
    until(lambda: "Common Cold" in find("#answers .candidates").text)
    text = find("#text textarea")
    text.clear()
    text.send_keys(f"{EVIL} a cold and a cold")
    start = browser.execute_script(
        "const at = arguments[0].value.lastIndexOf('cold'); arguments[0].focus();"
        "arguments[0].setSelectionRange(at, at + 4); return at",
        text,
    )
    until(lambda: find("#mention textarea, #mention input").get_attribute("value") == "cold")
    candidates = find("#candidates textarea")
    candidates.clear()
    candidates.send_keys(f"Common Cold | C0009443 | T047\n{EVIL} | C0009264")
    find("#ask").click()
    until(lambda: find("#answers .decision"))
    assert find("#answers mark").text == "cold"
    before = browser.execute_script("return document.querySelector('#answers mark').previousSibling.textContent")
    assert before == f"{EVIL} a cold and a " and len(before) == start
    assert EVIL in find("#answers .candidates").text and "Common Cold" in find("#answers .candidates").text
    look("try")
    row = {"mention": "flu", "left": "the ", "candidates": [{"name": "Influenza", "cui": "C0021400", "x_score": 0.75}]}
    candidates.clear()
    candidates.send_keys(json.dumps(row))
    find("#ask").click()
    until(lambda: find("#answers mark").text == "flu")
    assert "x_score 0.75" in find("#answers .candidates").text
    until(lambda: text.get_attribute("value") == "the flu")
    assert candidates.get_attribute("value") == json.dumps(row["candidates"][0])
    look("pasted")
    find("#mention textarea, #mention input").send_keys("s")
    find("#ask").click()
    until(lambda: "does not contain" in find(".toast-body").text)

    browser.find_element(By.XPATH, "//button[@role='tab'][contains(., 'Review')]").click()
    until(lambda: "0 of 3 reviewed" in find("#review").text)
    assert find("#review mark").text == f"{EVIL}0"
    find("#recalibrate").click()
    until(lambda: any(EVIL in toast.text for toast in browser.find_elements(By.CSS_SELECTOR, ".toast-body")))
    # On a phone they cover the buttons.
    until(lambda: [button.click() for button in browser.find_elements(By.CSS_SELECTOR, ".toast-close")] == [])
    find("#review [data-choice='1']").click()
    until(lambda: "1 of 3 reviewed" in find("#review").text)
    assert choices() == ["C0000002"]
    look("review")
    press("s")
    until(lambda: "1 skipped" in find("#review").text)
    press("n")
    until(lambda: "2 of 3 reviewed" in find("#review").text)
    assert choices() == ["C0000002", None]
    press("u")
    until(lambda: "1 of 3 reviewed" in find("#review").text)
    assert choices() == ["C0000002"]
    press("3")
    until(lambda: find("#review mark").text == f"{EVIL}1")
    assert choices() == ["C0000002", "C0000003"]
    # As if the mention had been answered on another page: what is typed here is not meant for the next one.
    sheet.undo()
    find("#other textarea, #other input").send_keys("C0000n9", Keys.ENTER)
    until(lambda: "1 of 3 reviewed" in find("#review").text)
    assert choices() == ["C0000002"]
    press("3")
    until(lambda: find("#review mark").text == f"{EVIL}1")
    find("#other textarea, #other input").send_keys("C0000n1", Keys.ENTER)
    until(lambda: "All mentions are reviewed" in find("#review").text)
    assert choices() == ["C0000002", "C0000003", "C0000n1"]
    find("#recalibrate").click()
    until(lambda: "fitted" in find("#compared").text)
    look("reviewed")
    find("a[href='report']").click()
    browser.switch_to.window(browser.window_handles[-1])
    until(lambda: browser.title == "The report")
    browser.switch_to.window(browser.window_handles[0])

    assert browser.execute_script("return typeof hacked") == "undefined"
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert asked and all(address.startswith((url, "data:", "blob:")) for address in asked)
