"Appendix drawing: strokes, the page and its JavaScript beside PyTorch, the widget's half in Python, ONNX."
import base64, copy, json, re, shutil, subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import mnist_foundations
from mnist_foundations.convolution import LeNet5, SmallConvNet
from mnist_foundations.data import load_mnist, mnist_path
from mnist_foundations.drawing import DigitCanvas, draw_strokes, examples, open_page, packed, to_onnx, web_file, write_page
from mnist_foundations.handwriting import handwriting
from mnist_foundations.reading import load_reader, read_digit, readers
from mnist_foundations.training import TwoLayerNet, predict
from mnist_foundations.transfer import as_mnist

NODE = shutil.which('node')


# Strokes.

def test_ink_falls_off_with_the_distance_from_the_line():
    sheet = draw_strokes([[(20.5, 40.5), (60.5, 40.5)]], side=100, pen=10)
    assert sheet.shape == (100, 100) and sheet.dtype == torch.float32
    assert sheet[40, 20:61].min() == 1 and sheet[40 + 4, 30] == 1 and sheet[40 + 5, 30] == .5 and sheet[40 + 6, 30] == 0
    assert sheet[40, 20 - 5] == .5 and sheet[40, 60 + 5] == .5 and sheet[40, 66] == 0           # round ends
    assert draw_strokes([]).sum() == 0
    assert (draw_strokes([[(50, 50)]]) == draw_strokes([[(50, 50), (50, 50)]])).all()


def test_strokes_that_cross_are_no_darker():
    one, two = [(10, 50), (90, 50)], [(50, 10), (50, 90)]
    assert (draw_strokes([one, two]) == torch.maximum(draw_strokes([one]), draw_strokes([two]))).all()


@pytest.mark.parametrize('digit', examples)
def test_the_drawings_that_travel_along_are_read_by_all_four_nets(digit):
    x = as_mnist(draw_strokes(examples[digit])).view(1, 784)
    assert [predict(load_reader(name), x).argmax().item() for name in readers] == [digit]*4
    assert read_digit(draw_strokes(examples[digit])).digit == digit


# The page.

def half(state): return {name: t.half().to(t.dtype) if t.is_floating_point() else t for name, t in state.items()}


def rounded(name):
    "The net with the numbers that the page has."
    net = copy.deepcopy(load_reader(name))
    net.load_state_dict(half(net.state_dict()))
    return net.eval()


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp('page')/'draw.html'
    write_page(path)
    return path


@pytest.fixture(scope='module')
def sheets():
    "Two hundred drawings, as 280 by 280 bytes: digits of strokes anywhere and of any size, and awkward ones."
    g = torch.Generator().manual_seed(0)
    made = []
    x, _ = handwriting(150, 1)
    for image in x.view(-1, 28, 28):
        side = torch.randint(40, 250, (2,), generator=g).tolist()
        ink = nn.functional.interpolate(image[None, None], size=side, mode='bilinear')[0, 0]
        top, left = (torch.randint(281 - s, (), generator=g).item() for s in side)
        sheet = torch.zeros(280, 280)
        sheet[top:top + side[0], left:left + side[1]] = ink
        made.append(sheet)
    for strokes in ([[(140, 40), (140, 240)]], [[(5, 5)]], [[(0, 0), (280, 280)]], [[(40, 140), (240, 140)]], examples[3], examples[7]):
        made.append(draw_strokes(strokes))
    for flip in (False, True):                             # heavy at one end: the frame stops the centre
        lopsided = torch.zeros(280, 280)
        lopsided[5:275, 140] = .02
        lopsided[5:18, 134:147] = 1
        lopsided = lopsided.flip(0) if flip else lopsided
        made += [lopsided, lopsided.T.contiguous()]
    dot, full = torch.zeros(280, 280), torch.ones(280, 280)
    dot[279, 0] = .004
    made += [dot, full]
    for _ in range(200 - len(made)):
        points = (torch.rand(6, 2, generator=g)*280).tolist()
        made.append(draw_strokes([points[:3], points[3:]]))
    return (torch.stack(made)*255).round().byte()


@pytest.mark.skipif(not NODE, reason='needs Node.js')
def test_javascript_sees_and_answers_as_pytorch_does(page, sheets, tmp_path):
    assert len(sheets) == 200
    (tmp_path/'sheets.bin').write_bytes(sheets.numpy().tobytes())
    told = re.search(r'<script type="application/json" id="nets">(.*?)</script>', page.read_text(encoding='utf-8'), re.S)[1]
    (tmp_path/'nets.json').write_text(told)
    (tmp_path/'run.js').write_text(web_file('nets.js') + """
    const fs = require('fs'), bytes = fs.readFileSync('sheets.bin'), told = JSON.parse(fs.readFileSync('nets.json')), out = []
    const run = {average: linearNet, linear: linearNet, two_layer: twoLayerNet, small_conv: smallConvNet}, tables = {}
    for (const name in told)
      tables[name] = Object.fromEntries(Object.entries(told[name].tables).map(([key, table]) => [key, decode(table)]))
    for (let i = 0; i < bytes.length/78400; i++) {
      const x = asMnist(Float32Array.from(bytes.subarray(i*78400, (i + 1)*78400), value => value/255), 280, 280)
      const answers = Object.fromEntries(Object.keys(run).map(name => [name, softmax(run[name](x, tables[name]).scores)]))
      out.push({seen: Array.from(x.data), ...answers})
    }
    console.log(JSON.stringify(out))""")
    ended = subprocess.run([NODE, 'run.js'], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    theirs = json.loads(ended.stdout)
    seen = torch.stack([as_mnist(sheet.float()/255) for sheet in sheets]).view(-1, 784)
    assert_close(torch.tensor([each['seen'] for each in theirs]), seen, atol=1e-4, rtol=0)
    for name in readers:
        assert_close(torch.tensor([each[name] for each in theirs]), predict(rounded(name), seen), atol=1e-4, rtol=0)


def test_rounding_the_weights_changes_next_to_nothing():
    x, y = load_mnist(mnist_path(), 'testing')
    for name in readers: assert (predict(rounded(name), x) - predict(load_reader(name), x)).abs().max() < .02


def test_the_page_is_whole_small_and_alone(page, tmp_path):
    text = page.read_text(encoding='utf-8')
    assert page.stat().st_size < 1_500_000 and '{{' not in text
    assert not re.search(r'https?://|src="(?!data:)', text) and "default-src 'none'" in text
    for word in ('lang="en"', '<title>', '<main>', 'viewport'): assert word in text
    with pytest.raises(OSError): write_page(tmp_path/'nowhere'/'draw.html')
    assert not (tmp_path/'nowhere').exists()


def test_the_page_tells_the_measured_accuracies(page):
    told = json.loads(re.search(r'id="nets">(.*?)</script>', page.read_text(encoding='utf-8'), re.S)[1])
    card = (Path(mnist_foundations.__file__).parent/'weights'/'README.md').read_text(encoding='utf-8')
    for name, net in told.items(): assert f"| `{name}` | {net['numbers']:,} |" in card and f"{net['accuracy']:.2%}" in card


def test_packed_numbers_come_back():
    table = torch.tensor([[.1, -65504, 1e-7], [0, 1, -2.5]])
    told = packed(table)
    assert told['shape'] == [2, 3]
    assert_close(torch.from_numpy(np.frombuffer(base64.b64decode(told['base64']), '<f2').copy()).view(2, 3), table.half())
    for wrong in (7e4, float('nan')):
        with pytest.raises(ValueError, match='float16'): packed(torch.tensor([wrong]))


def test_open_page_says_where_it_is(tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr('webbrowser.open', lambda address: opened.append(address) or True)
    open_page(tmp_path/'my page.html')
    assert opened == [(tmp_path/'my page.html').as_uri()] and opened[0] in capsys.readouterr().out
    monkeypatch.setattr('webbrowser.open', lambda address: False)
    open_page(tmp_path/'my page.html')
    assert 'open it yourself' in capsys.readouterr().out


# The widget.

def test_pixels_from_the_browser_are_answered():
    canvas = DigitCanvas()
    assert canvas.answer == {} and canvas.widget.answer == {} and canvas.widget.n_hidden == 100
    sent = (255*draw_strokes(examples[7])).round().byte().numpy().tobytes()
    canvas.widget.set_state({'pixels': memoryview(sent)})         # as a browser's message comes
    answer = canvas.widget.answer
    assert np.argmax(answer['probabilities']) == 7 and len(answer['seen']) == 784 and len(answer['hidden']) == 100
    assert_close(canvas.answer['image'], as_mnist((255*draw_strokes(examples[7])).round()/255))
    two, x = load_reader('two_layer'), canvas.answer['image'].view(1, 784)
    with torch.no_grad(): assert_close(canvas.answer['hidden'], (x@two.w1 + two.b1).relu()[0])
    canvas.widget.pixels = bytes(280*280)
    assert canvas.widget.answer == {}


def test_a_model_of_ones_own():
    own = TwoLayerNet(30)
    canvas = DigitCanvas(own)
    canvas.draw(examples[3])
    assert canvas.widget.n_hidden == 30 and canvas.answer['hidden'].shape == (30,)
    assert_close(canvas.answer['probabilities'], predict(own, canvas.answer['image'].view(1, 784))[0])
    plain = DigitCanvas(lambda x: x[:, 300:310]*0 + torch.arange(10.))
    plain.draw(examples[3])
    assert 'hidden' not in plain.answer and plain.answer['probabilities'].argmax() == 9 and plain.widget.answer['hidden'] == b''
    with pytest.raises(ValueError, match='expected \\(10,\\)'): DigitCanvas(nn.Linear(784, 3))


def test_a_picture_stands_beside_the_widget():
    data, facts = DigitCanvas()._repr_mimebundle_()
    assert {'application/vnd.jupyter.widget-view+json', 'image/png'} <= set(data)
    assert 'read as 3' in facts['image/png']['alt']


# ONNX.

@pytest.mark.parametrize('make', [lambda: TwoLayerNet(20), SmallConvNet, LeNet5], ids=['two layers', 'small net', 'LeNet-5'])
def test_onnx_answers_as_pytorch_does(make, tmp_path):
    runtime = pytest.importorskip('onnxruntime', reason="needs pip install '.[onnx]'")
    pytest.importorskip('onnxscript', reason="needs pip install '.[onnx]'")
    torch.manual_seed(0)
    net = make()
    net(torch.rand(50, 784))                              # running means that are not 0
    to_onnx(net, tmp_path/'net.onnx')
    assert net.training                                   # as it was
    session = runtime.InferenceSession(tmp_path/'net.onnx')
    for n in (1, 2, 7):
        x = torch.rand(n, 784)
        scores, = session.run(['scores'], {'images': x.numpy()})
        with torch.no_grad(): assert_close(torch.from_numpy(scores), net.eval()(x), atol=1e-5, rtol=0)
        net.train()


def test_onnx_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr('mnist_foundations.drawing.find_spec', lambda name: None)
    with pytest.raises(ImportError, match=r'mnist_foundations\[onnx\]'): to_onnx(TwoLayerNet(3), tmp_path/'net.onnx')
    assert not list(tmp_path.iterdir())
