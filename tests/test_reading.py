"Chapter 13: paper, ink, pieces, every kind of file, the nets that travel with the package, and the command."
import io, re, struct, subprocess, sys, time, zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits
from torch.testing import assert_close

import mnist_foundations
from long_experiments import SHARED, needs_all, recorded_rows, script
from mnist_foundations.data import load_mnist, mnist_path, split_valid
from mnist_foundations.handwriting import blank_sheet, page_of_text, photograph, row_of_digits
from mnist_foundations.reading import (Piece, belong, brightness, find_digit, fit_temperature, has_light_ink, ink_of, is_frame, is_sheet,
                                       largest, load_reader, main, open_picture, paper_light, pieces_of, read_digit, readers,
                                       reliability, see)
from mnist_foundations.training import predict
from mnist_foundations.transfer import as_mnist

OWN = Path(__file__).resolve().parent.parent.parent/'shared'/'own_digits'
WEIGHTS = Path(mnist_foundations.__file__).parent/'weights'
wrong_answers = ['ink_by_hand = [0, 5, 0, 0, 3, 3, 6, 3]', 'def count_pieces(inked, least): return len(pieces_of(inked))',
                 'three_probabilities = [.95, .88, .73]',
                 'def calibration_error(rows): return sum(abs(a - b) for a, b, _ in rows)/len(rows)', 'still_read = 0']


@pytest.fixture(scope='module')
def valid():
    "Validation images as (n, 28, 28) arrays, and their labels."
    *_, x, y = split_valid(*load_mnist(mnist_path(), 'training'))
    return x.view(-1, 28, 28).numpy(), y


def png(image, scale=10, dark=True):
    "A drawing of a (28, 28) image, dark on white or light on black."
    grey = 1 - image if dark else image
    return Image.fromarray((grey*255).round().astype(np.uint8)).resize((28*scale, 28*scale), Image.Resampling.BICUBIC)


def right(pictures, labels): return sum(read_digit(p).digit == label for p, label in zip(pictures, labels.tolist()))/len(labels)


# Paper and ink.

def test_paper_keeps_shadows_and_loses_strokes():
    grey = torch.full((60, 60), .9)
    grey[:, 30:] = .5                                     # a shadow
    grey[20:40, 10:14] = .1                               # a stroke in the light
    grey[20:40, 44:48] = .1                               # and one in the shadow
    paper = paper_light(grey)
    assert_close(paper[:, :28], torch.full((60, 28), .9))
    assert_close(paper[:, 32:], torch.full((60, 28), .5))
    ink, noise = ink_of(grey)
    assert noise == 0 and ink[:, 20:26].max() < 1e-6
    assert ink[30, 12].item() == pytest.approx(.8/.9, abs=.02) and ink[30, 46].item() == pytest.approx(.4/.5, abs=.02)


@pytest.mark.parametrize('shape', [(64, 64), (79, 200), (256, 171), (90, 256)])
def test_paper_has_the_shape_of_the_picture_and_is_no_darker(shape):
    g = torch.Generator().manual_seed(0)
    grey = torch.rand(shape, generator=g)*.05 + .8
    paper = paper_light(grey)
    assert paper.shape == shape and (grey - paper).max() < .05 and paper.min() >= .8
    assert ink_of(grey)[0].shape == shape


def test_the_window_is_a_third_of_the_longer_side():
    for wide, gone in ((18, True), (24, False)):         # of 60 pixels; a window of 21
        grey = torch.ones(60, 60)
        grey[:, 20:20 + wide] = .2
        assert bool(paper_light(grey)[30, 20 + wide//2] > .9) == gone


def test_noise_grows_with_the_noise_and_not_with_the_ink():
    g = torch.Generator().manual_seed(0)
    still, noisy = (torch.full((100, 100), .8) + s*torch.randn(100, 100, generator=g) for s in (.01, .04))
    a, b = ink_of(still)[1], ink_of(noisy)[1]
    assert 3 < b/a < 5 and .005 < a < .03
    still[20:80, 40:50] = .1
    assert ink_of(still)[1] == pytest.approx(a, rel=.2)


@pytest.mark.parametrize('seed', range(4))
def test_light_ink_is_told_from_dark_on_a_slope_of_light(seed):
    down, across = torch.meshgrid(torch.linspace(0, 1, 80), torch.linspace(0, 1, 100), indexing='ij')
    grey = .5 + .2*across - .1*down**2
    row, column = 20 + 5*seed, 30 + 7*seed
    for change, light in ((-.2, False), (.2, True)):
        picture = grey.clone()
        picture[row:row + 30, column:column + 6] += change
        assert has_light_ink(picture) is light


def test_ink_on_half_of_the_pixels_stays_ink():
    grey = torch.full((90, 90), .9)
    for column in range(5, 90, 10): grey[:, column:column + 5] = .1
    assert ink_of(grey)[0][45, 27].item() > .6 and ink_of(grey)[0][45, 22].item() < .1


# Pieces.

def test_pieces_touch_at_corners_and_come_by_size():
    inked = np.zeros((6, 8), bool)
    inked[0, 0] = inked[1, 1] = inked[2, 2] = True
    inked[4:6, 4:8] = True
    large, small = pieces_of(inked)
    assert (large.area, small.area) == (8, 3) and (large.size, small.size) == (4, 3)
    assert large.box == (slice(4, 6), slice(4, 8)) and large.at_edge and small.at_edge
    assert pieces_of(np.zeros((4, 4), bool)) == []


@pytest.mark.parametrize('side', range(4))
def test_at_edge_on_each_side(side):
    inked = np.zeros((9, 9), bool)
    inked[4, 4] = True
    assert not pieces_of(inked)[0].at_edge
    inked = np.zeros((9, 9), bool)
    inked[[0, 8, 4, 4][side], [4, 4, 0, 8][side]] = True
    assert pieces_of(inked)[0].at_edge


def test_frames_and_sheets():
    def piece(draw, size=100):
        image = Image.new('1', (size, size))
        draw(ImageDraw.Draw(image))
        return pieces_of(np.array(image))[0]
    frame = piece(lambda d: d.rectangle((10, 10, 90, 90), outline=1, width=3))
    sheet = piece(lambda d: d.rectangle((10, 10, 90, 90), fill=1))
    holed = piece(lambda d: (d.rectangle((10, 10, 90, 90), fill=1), d.line((50, 30, 50, 70), fill=0, width=5)))
    ring = piece(lambda d: d.ellipse((10, 10, 90, 90), outline=1, width=12))
    blot = piece(lambda d: d.ellipse((10, 10, 90, 90), fill=1))
    bar = piece(lambda d: d.rectangle((45, 10, 58, 90), fill=1))
    stamp = piece(lambda d: d.rectangle((10, 10, 30, 30), fill=1))
    small = piece(lambda d: d.rectangle((10, 10, 25, 25), outline=1))
    assert [is_frame(p) for p in (frame, sheet, holed, ring, blot, bar, stamp, small)] == [True] + [False]*7
    assert [is_sheet(p) for p in (frame, sheet, holed, ring, blot, bar, stamp, small)] == [False, True, True] + [False]*5


def piece_at(rows, columns):
    box = slice(*rows), slice(*columns)
    return Piece(box, np.ones((rows[1] - rows[0], columns[1] - columns[0]), bool), (200, 200))


@pytest.mark.parametrize('other, together', [
    (((40, 80), (54, 60)), True), (((40, 80), (56, 60)), False),          # 4 and 6 columns beside a piece 40 high
    (((26, 30), (44, 60)), True), (((24, 29), (44, 60)), False),          # above it by 10, and by 11
    (((90, 95), (44, 60)), True), (((91, 95), (44, 60)), False),
    (((30, 35), (52, 60)), True), (((30, 34), (56, 60)), False)])         # aslant: 5 rows and 2 columns
def test_what_belongs_together(other, together):
    main_piece, piece = piece_at((40, 80), (40, 50)), piece_at(*other)
    assert (len(belong(main_piece, [main_piece, piece])) == 2) is together


def test_what_belongs_together_goes_on_from_piece_to_piece():
    chain = [piece_at((40, 80), (40, 50)), piece_at((40, 50), (54, 60)), piece_at((40, 50), (64, 70))]
    assert len(belong(chain[0], chain)) == 3 and len(belong(chain[0], [chain[0], chain[2]])) == 1


# Digits found.

def test_mnist_itself_comes_back(valid):
    images, labels = valid
    for image in images[:20]:
        seen, problem = see(image)
        assert not problem and np.corrcoef(seen.flatten(), image.flatten())[0, 1] > .85
    assert right(images[:100], labels[:100]) >= .98


@pytest.mark.parametrize('kind', ['dark', 'light', 'small', 'huge', 'framed', 'on a table', 'specks', 'ruled'])
def test_each_kind_of_drawing_is_read(valid, kind):
    images, labels = valid
    def drawn(i, image):
        if kind == 'small': return png(image, 2)
        if kind == 'huge': return png(image, 60)
        picture = png(image, dark=kind != 'light')
        if kind == 'on a table':
            table = Image.new('L', (420, 420), 60)
            table.paste(picture.point(lambda v: .8*v + 40), (60, 70))
            return table
        if kind == 'framed':
            board = Image.new('L', (340, 340), 255)
            board.paste(picture, (30, 30))
            ImageDraw.Draw(board).rectangle((10, 10, 330, 330), outline=0, width=4)
            return board
        pencil, places = ImageDraw.Draw(picture), np.random.default_rng(i).integers(0, 280, (12, 2))
        if kind == 'specks':
            for across, down in places.tolist(): pencil.ellipse((across, down, across + 3, down + 3), fill=90)
        if kind == 'ruled':
            lined = Image.new('L', picture.size, 255)
            for down in range(20, 280, 40): ImageDraw.Draw(lined).line((0, down, 280, down), fill=215)
            return Image.fromarray(np.minimum(np.array(lined), np.array(picture)))
        return picture
    n = 10 if kind == 'huge' else 40
    assert right([drawn(i, image) for i, image in enumerate(images[:n])], labels[:n]) >= .95


def test_a_dark_margin_larger_than_the_digit_is_left_out(three):
    page = Image.new('L', (360, 280), 255)
    page.paste(png(three), (80, 0))
    ImageDraw.Draw(page).rectangle((0, 0, 45, 280), fill=0)
    assert read_digit(page).digit == 3


def test_thin_strokes_come_up_to_full_ink():
    page = Image.new('L', (280, 280), 255)
    ImageDraw.Draw(page).line((140, 40, 150, 240), fill=90, width=2)
    assert see(page)[0].max() == 1


def test_photographs_are_read(valid):
    images, labels = valid
    source = np.random.default_rng(11)
    pictures = [photograph(image, source)[0] for image in images[-80:]]
    assert right(pictures, labels[-80:]) >= .95


@pytest.mark.parametrize('kind, share', [('blank', .9), ('page', .95), ('row', .9)])
def test_what_holds_no_single_digit_is_not_read(valid, kind, share):
    source, images = np.random.default_rng(5), valid[0]
    def picture():
        if kind == 'blank': return blank_sheet(source)
        if kind == 'page': return page_of_text(source)
        return row_of_digits([images[i] for i in source.integers(0, len(images), source.integers(2, 5))], source)
    readings = [read_digit(picture()) for _ in range(25)]
    assert sum(reading.digit is None for reading in readings) >= share*25
    assert all(reading.problem for reading in readings if reading.digit is None)
    assert all(reading.probabilities is None for reading in readings if reading.digit is None)


def test_nothing_at_all():
    for picture in (np.zeros((50, 50)), np.ones((50, 50)), np.full((40, 90), .4), np.zeros((1, 1)), np.ones((3, 500))):
        assert read_digit(picture).digit is None
    assert 'no ink' in str(read_digit(np.ones((50, 50))))


@pytest.mark.skipif(not OWN.is_dir(), reason='needs ../shared/own_digits')
def test_ten_digits_that_somebody_drew():
    readings = [read_digit(OWN/f'{digit}.png') for digit in range(10)]
    assert [reading.digit for reading in readings] == list(range(10))
    assert min(reading.probabilities.max().item() for reading in readings) > .5


# Every kind of picture.

@pytest.fixture
def three(valid):
    images, labels = valid
    return next(image for image, label in zip(images, labels) if label == 3 and read_digit(image).digit == 3)


MODES = ['1', 'L', 'P', 'RGB', 'RGBA', 'LA', 'CMYK', 'YCbCr', 'I;16', 'I', 'F']

@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('scale', [4, 20])
def test_every_mode(three, mode, scale):
    picture = png(three, scale)
    if mode in ('I;16', 'I'): picture = Image.fromarray((np.array(picture).astype(np.uint16)*257)).convert(mode)
    elif mode == 'F': picture = Image.fromarray(np.array(picture).astype(np.float32)/255)
    else: picture = picture.convert(mode)
    assert picture.mode == mode and read_digit(picture).digit == 3


@pytest.mark.parametrize('file', ['png', 'jpg', 'gif', 'bmp', 'tiff', 'webp', 'ppm'])
def test_every_file(three, file, tmp_path):
    path = tmp_path/f'a digit.{file}'
    png(three, 20).save(path)
    with open(path, 'rb') as opened: assert read_digit(opened).digit == 3
    assert read_digit(path).digit == read_digit(str(path)).digit == 3


def test_sixteen_bits_in_a_file(three, tmp_path):
    Image.fromarray(np.array(png(three)).astype(np.uint16)*257).save(tmp_path/'deep.png')
    grey = brightness(tmp_path/'deep.png')
    assert grey.min() == 0 and grey.max() == 1 and read_digit(tmp_path/'deep.png').digit == 3


@pytest.mark.parametrize('ink, alpha', [((0, 0, 0), 255), ((255, 255, 255), 255), ((200, 0, 0), 255), ((255, 255, 0), 255), ((0, 0, 90), 180)])
def test_strokes_on_nothing(three, ink, alpha):
    "Transparent pictures: whatever the colour of the ink, and whatever lies below the transparent pixels."
    solid = np.array(png(three, dark=False)).astype(float)/255*alpha
    for below in ((0, 0, 0), (255, 255, 255), ink):
        colours = np.where(solid[..., None] > 0, ink, below)
        assert read_digit(Image.fromarray(np.dstack([colours, solid]).round().astype(np.uint8))).digit == 3


def test_an_opaque_drawing_with_transparent_corners(three):
    picture = png(three, 12).convert('RGBA')
    mask = Image.new('L', picture.size)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, *picture.size), 60, fill=255)
    picture.putalpha(mask)
    assert read_digit(picture).digit == 3


@pytest.mark.parametrize('orientation, turn', [(1, 0), (3, 180), (6, 90), (8, 270)])
def test_turned_by_exif(three, orientation, turn, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    png(three, 12).rotate(turn, expand=True).save(tmp_path/'turned.jpg', exif=exif)
    assert read_digit(tmp_path/'turned.jpg').digit == 3


def test_numbers_in_every_form(three):
    image = torch.from_numpy(three)
    forms = [image, image.double(), image.half(), image.flatten(), image[None], image[None, None], image.numpy(), (image*255).byte(),
             (image.numpy()*65535).astype(np.uint16), image > .5, image.expand(3, 28, 28), image[..., None].expand(28, 28, 3),
             torch.cat([image.expand(3, 28, 28), torch.ones(1, 28, 28)])]
    for form in forms: assert read_digit(form).digit == 3, form.shape


@pytest.mark.parametrize('numbers, error, said', [
    (torch.rand(5), ValueError, 'shape (5,)'), (np.zeros((0, 4)), ValueError, 'shape (0, 4)'), (torch.rand(2, 3, 4, 5), ValueError, 'shape'),
    (np.full((9, 9), 1.5), ValueError, '1.5 to 1.5'), (np.full((9, 9), np.nan), ValueError, 'nan'), (np.full((9, 9), -1.), ValueError, '-1 to'),
    (np.ones((9, 9), int), TypeError, 'int64'), (7, TypeError, 'int'), (None, TypeError, 'NoneType')])
def test_numbers_that_are_no_picture(numbers, error, said):
    with pytest.raises(error, match=re.escape(said)): read_digit(numbers)


def test_files_that_are_no_picture(tmp_path, three):
    files = dict(empty=b'', text=b'seven', pdf=b'%PDF-1.7 0 obj')
    for name, held in files.items(): (tmp_path/name).write_bytes(held)
    png(three, 30).save(tmp_path/'whole.jpg')
    (tmp_path/'cut.jpg').write_bytes((tmp_path/'whole.jpg').read_bytes()[:1500])
    png(three).save(tmp_path/'moves.gif', save_all=True, append_images=[png(three, dark=False)])
    for name, said in dict(empty='is empty', text='no picture', pdf='no picture', moves='2 frames', cut='damaged').items():
        path = next(tmp_path.glob(f'{name}*'))
        with pytest.raises(ValueError, match=said) as e: read_digit(path)
        assert len(str(e.value).splitlines()) == 1
    with pytest.raises(ValueError, match='is a folder'): read_digit(tmp_path)
    with pytest.raises(FileNotFoundError, match='not there'): read_digit(tmp_path/'nowhere.png')


def header(wide, high):
    "A PNG file that claims to be so large, and holds next to nothing."
    def chunk(name, body): return struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', wide, high, 8, 0, 0, 0, 0)) + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')


@pytest.mark.parametrize('wide, high', [(20_000, 20_000), (10_000, 9_500), (7_072, 7_072)])
def test_what_is_too_large_is_refused_before_it_is_decoded(wide, high, recwarn):
    began = time.perf_counter()
    with pytest.raises(ValueError, match='expected at most 50,000,000'): open_picture(io.BytesIO(header(wide, high)))
    assert time.perf_counter() - began < .5 and wide*high > largest
    assert not [w for w in recwarn.list if w.category is Image.DecompressionBombWarning]      # not those of files left open elsewhere
    assert open_picture(io.BytesIO(header(7_071, 7_071))).size == (7_071, 7_071)


# The nets.

def test_the_nets_that_travel_with_the_package(valid):
    x, y = torch.from_numpy(valid[0]).view(-1, 784), valid[1]
    digits = load_digits()
    others, y_others = torch.stack([as_mnist(image) for image in torch.from_numpy(digits.images).float()/16]).view(-1, 784), torch.from_numpy(digits.target)
    least = dict(average=.75, linear=.85, two_layer=.97, small_conv=.985)
    assert set(readers) == set(least) == {path.stem for path in WEIGHTS.glob('*.safetensors')}
    for name, share in least.items():
        net = load_reader(name)
        assert not net.training and (predict(net, x).argmax(1) == y).float().mean() >= share
        with torch.no_grad(): assert .5 < fit_temperature(net(others), y_others) < 2.5       # the temperature is in the weights
    assert load_reader() is load_reader()
    with pytest.raises(ValueError, match="'big'.*average, linear"): load_reader('big')


def test_damaged_weights_say_so(monkeypatch, tmp_path):
    (tmp_path/'weights').mkdir()
    (tmp_path/'weights'/'small_conv.safetensors').write_bytes((WEIGHTS/'small_conv.safetensors').read_bytes()[:5000])
    monkeypatch.setattr('mnist_foundations.reading.files', lambda name: tmp_path)
    load_reader.cache_clear()
    with pytest.raises(ValueError, match='damaged'): read_digit(np.eye(28))
    load_reader.cache_clear()


def test_the_card_tells_what_the_rows_tell():
    card, rows = (WEIGHTS/'README.md').read_text(encoding='utf-8'), recorded_rows('reading')
    for row in rows[rows.purpose == 'ship'].itertuples():
        line, = [line for line in card.splitlines() if line.startswith(f'| `{row.change}`')]
        for share in (row.accuracy, row.photos, row.other_hands): assert f'{share:.2%}' in line
    for word in ('MNIST', 'CC BY-SA', 'License', 'fail'): assert word in card


def test_recorded_choices():
    rows = recorded_rows('reading')
    choices = rows[rows.purpose == 'choose']
    assert set(choices.seed) == {0, 1, 2} and len(choices) == 12
    ship = rows[rows.purpose == 'ship'].set_index('change')
    assert ship.photos['small_conv'] >= .98 and ship.accuracy['small_conv'] >= .99


@needs_all
def test_a_short_row_again():
    benchmark, path = script('reading'), mnist_path(SHARED)
    x, y, x_valid, y_valid = split_valid(*load_mnist(path, 'training'))
    few = benchmark.photographed(x_valid[:200], y_valid[:200], 0)
    torch.set_num_threads(1)
    row = benchmark.one_choice('pens and strokes', 0, 1, (x[:20_000], y[:20_000]), (x_valid, y_valid), few, benchmark.other_hands())
    assert row['accuracy'] > .97 and row['photos'] > .93 and row['other_hands'] > .85


# How sure.

def test_reliability():
    p = torch.tensor([[.9, .1], [.6, .4], [.3, .7], [.5, .5]])
    rows = reliability(p, torch.tensor([0, 1, 1, 0]), edges=(0, .5, .8, 1))
    assert_close(torch.tensor(rows), torch.tensor([(.5, 1, 1), (.65, .5, 2), (.9, 1, 1)]))


def test_temperature_brings_back_what_scores_were_multiplied_by():
    g = torch.Generator().manual_seed(0)
    scores = torch.randn(4000, 10, generator=g)*2
    y = torch.multinomial(scores.softmax(1), 1, generator=g)[:, 0]
    assert fit_temperature(scores, y) == pytest.approx(1, abs=.06)
    assert fit_temperature(3*scores, y) == pytest.approx(3*fit_temperature(scores, y), rel=.02)


def test_a_reading_tells_and_shows_itself(three):
    reading = read_digit(png(three))
    assert reading.digit == 3 and reading.problem == '' and reading.image.shape == (28, 28)
    assert reading.probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    assert str(reading) == f'3, {reading.probabilities[3]:.1%}'
    data, metadata = reading._repr_mimebundle_()
    assert '3, ' in metadata['image/png']['alt'] and data['image/png'][:4] == b'\x89PNG'
    assert 'no digit' in read_digit(np.ones((50, 50)))._repr_mimebundle_()[1]['image/png']['alt']
    own = read_digit(png(three), lambda x: torch.eye(10)[7:8]*9)                        # any callable
    assert own.digit == 7


# The command.

def command(*arguments, **options):
    return subprocess.run([sys.executable, '-m', 'mnist_foundations.reading', *map(str, arguments)], capture_output=True, text=True,
                          encoding='utf-8', **options)


def test_the_command(three, tmp_path):
    (tmp_path/'pictures').mkdir()
    png(three).save(tmp_path/'pictures'/'a.png')
    png(three, 20, dark=False).save(tmp_path/'pictures'/'b.jpg')
    (tmp_path/'pictures'/'notes.txt').write_text('no picture')
    ended = command(tmp_path/'pictures', tmp_path/'pictures'/'a.png', '--show', tmp_path/'seen')
    assert ended.returncode == 0 and not ended.stderr, ended.stderr
    assert [re.search(r'([ab])\.\w+: 3, \d+\.\d%$', line)[1] for line in ended.stdout.splitlines()] == ['a', 'b', 'a']
    seen = np.array(Image.open(tmp_path/'seen'/'a_seen.png'))
    assert seen.shape == (280, 280)
    assert_close(torch.from_numpy(seen[::10, ::10]/255.), see(png(three))[0].double(), atol=.003, rtol=0)


def test_the_command_goes_on_after_what_it_cannot_read(three, tmp_path):
    png(three).save(tmp_path/'a.png')
    (tmp_path/'none').mkdir()
    (tmp_path/'text.png').write_text('three')
    Image.new('L', (80, 80), 200).save(tmp_path/'blank.png')
    ended = command(tmp_path/'text.png', tmp_path/'none', tmp_path/'gone.png', tmp_path/'blank.png', tmp_path/'a.png')
    assert ended.returncode == 1
    assert ['no digit' in line for line in ended.stdout.splitlines()] == [True, False]
    assert len(ended.stderr.splitlines()) == 3 and 'Traceback' not in ended.stderr
    for said in ('no picture', 'without pictures', 'not there'): assert said in ended.stderr


def test_the_command_reads_standard_input(three):
    file = io.BytesIO()
    png(three).save(file, 'PNG')
    ended = subprocess.run([sys.executable, '-m', 'mnist_foundations.reading', '-'], input=file.getvalue(), capture_output=True)
    assert ended.returncode == 0 and ended.stdout.startswith(b'standard input: 3')


def test_the_command_explains_itself():
    assert command().returncode == 2 and 'usage' in command().stderr
    assert '--show' in command('--help').stdout


def test_main_returns_its_code(three, tmp_path, capsys):
    png(three).save(tmp_path/'a.png')
    assert main([str(tmp_path/'a.png')]) == 0 and ': 3, ' in capsys.readouterr().out
    assert main([str(tmp_path/'b.png')]) == 1 and 'not there' in capsys.readouterr().err
