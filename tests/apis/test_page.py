"""The local page: what it shows, and in a real browser (`make test-browser`)."""

import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from mmctx.apis.predicting import Predictor
from mmctx.apis.seeing import ContextViewer
from mmctx.apis.seeing.page import build_page, launch, view_of
from mmctx.errors import UserError


@pytest.fixture(scope='module')
def viewer(classifier):
    return ContextViewer(Predictor(classifier / 'epoch_1.pth', device='cpu'))


def test_page_shows_what_the_network_predicts(viewer, pictures):
    pytest.importorskip('captum')
    path = str(pictures / 'a.jpg')
    view = view_of(viewer, path, 'layer2.0.conv2', (0.0, 1.0), 'bee')
    (result,) = viewer.predictor([path])
    (first, *others) = result['labels']
    assert first['score'] == 1 and all(entry['score'] == 0 for entry in others)
    assert view.prediction == {first['name']: 1}
    assert np.array_equal(view.seen[2::4, 2::4], viewer.load(path).image)
    # Another place is another figure; each has four panels.
    other = view_of(viewer, path, 'layer2.0.conv2')
    assert view.sampling.size == other.sampling.size and view.sampling != other.sampling
    assert view.cascade.width > 2 * view.cascade.height and view.cam is not None
    with pytest.raises(UserError, match="no class 'cow'"):
        view_of(viewer, path, 'layer2.0.conv2', label='cow')


def test_a_network_for_videos_is_refused(recognizer):
    pytest.importorskip('gradio')
    viewer = ContextViewer(Predictor(recognizer / 'epoch_1.pth', device='cpu'))
    with pytest.raises(UserError, match='takes pictures'):
        build_page(viewer)


def listening_addresses(port):
    """Addresses that something listens at on a port, as Linux says."""
    lines = Path('/proc/net/tcp').read_text().splitlines()[1:]
    local = [line.split()[1].split(':') for line in lines if line.split()[3] == '0A']
    found = [address for address, number in local if int(number, 16) == port]
    return [socket.inet_ntoa(bytes.fromhex(address)[::-1]) for address in found]


@pytest.mark.browser
def test_page_in_a_browser(viewer, pictures, tmp_path):
    """A picture is uploaded, looked at, and clicked on; nothing is fetched from elsewhere."""
    pytest.importorskip('gradio')
    playwright = pytest.importorskip('playwright.sync_api')
    browser = shutil.which('chromium') or pytest.skip('no chromium')
    page_of_gradio = build_page(viewer, [str(pictures / 'b.png')])
    address = launch(page_of_gradio, port=0)
    assert address.startswith('http://127.0.0.1:')
    elsewhere, errors = [], []
    try:
        with playwright.sync_playwright() as driver:
            chromium = driver.chromium.launch(executable_path=browser, args=['--no-sandbox'])
            page = chromium.new_page(viewport=dict(width=1280, height=1500))
            page.on('pageerror', lambda error: errors.append(str(error)))
            page.on(
                'request',
                lambda request: (
                    None
                    if request.url.startswith((address.rstrip('/'), 'data:', 'blob:'))
                    else elsewhere.append(request.url)
                ),
            )
            page.goto(address)
            # Without a picture it says so.
            page.get_by_role('button', name='Look').click()
            page.get_by_text('Choose a picture first.').wait_for()
            page.set_input_files('input[type=file]', str(pictures / 'a.jpg'))
            page.wait_for_function("document.querySelectorAll('img').length >= 2")
            page.get_by_role('button', name='Look').click()
            figure = page.locator('#sampling img')
            figure.wait_for(timeout=30_000)
            page.screenshot(path=str(tmp_path / 'looked.png'), full_page=True)
            (result,) = viewer.predictor([str(pictures / 'a.jpg')])
            shown = page.locator('#prediction').inner_text()
            assert result['labels'][0]['name'] in shown
            before = figure.get_attribute('src')
            seen = page.locator('#seen img')
            seen.click(position=dict(x=30, y=200))
            page.wait_for_function(
                'old => ![...document.images].some(image => image.src === old)',
                arg=before,
                timeout=60_000,
            )
            page.screenshot(path=str(tmp_path / 'clicked.png'), full_page=True)
            chromium.close()
        # The port is taken, and others are told so.
        port = int(address.rstrip('/').rpartition(':')[2])
        with pytest.raises(UserError, match='name another with --port'):
            launch(build_page(viewer), port=port)
        assert listening_addresses(port) == ['127.0.0.1']
    finally:
        page_of_gradio.close()
    assert not errors and not elsewhere
