"Chapter 01: distances, averages and the nearest average, by numbers worked by hand."
import numpy as np
import pytest
import torch
from torch import tensor

from mnist_foundations.similarity import average_images, l1_distance, l2_distance, nearest_average

devices = ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA GPU'))]
distances = pytest.mark.parametrize('distance', [l1_distance, l2_distance])

# A plausible wrong answer for each exercise of the chapter that has a checker, in order.
wrong_answers = ['my_distances = [1.4, 1.]',
                 'my_shape = (10, 784)',
                 'def my_linf(a, b): return (a - b).amax(-1)',
                 'my_averages = broken_averages',
                 'my_curve = [.8, .8, .6, .4, .2, .1, .1]']


# Distances. The differences are −.7, .7, −.1, .1: they cancel, so a missing abs or square gives 0 or less.

a, b = tensor([.1, .9, .2, .6]), tensor([.8, .2, .3, .5])

def test_l1_by_hand():
    torch.testing.assert_close(l1_distance(a, b), tensor(1.6/4))

def test_l2_by_hand():
    torch.testing.assert_close(l2_distance(a, b), tensor(.5))      # the root of (.49 + .49 + .01 + .01)/4

@distances
def test_which_is_subtracted_from_which_does_not_matter(distance):
    assert torch.equal(distance(a, b), distance(b, a))
    assert distance(a, a) == 0

def test_a_row_of_distances_is_over_the_pixels_and_not_over_the_images():
    images = tensor([[0., 0., 0.], [3., 0., 0.], [0., 4., 8.]])
    torch.testing.assert_close(l1_distance(images, torch.zeros(3)), tensor([0., 1., 4.]))
    torch.testing.assert_close(l2_distance(images, torch.zeros(3)), tensor([0., 3**.5, (80/3)**.5]))

@distances
def test_every_image_meets_every_average(distance):
    g = torch.Generator().manual_seed(0)
    images, averages = torch.rand(5, 7, generator=g), torch.rand(3, 7, generator=g)
    table = distance(images[:, None], averages)                    # (n, 1, p) and (c, p) -> (n, c)
    assert table.shape == (5, 3)
    for n in range(5):
        for c in range(3): torch.testing.assert_close(table[n, c], distance(images[n], averages[c]))

def test_as_pytorch_measures_them():
    g = torch.Generator().manual_seed(1)
    images, average = torch.rand(6, 784, generator=g), torch.rand(784, generator=g)
    l1 = torch.stack([torch.nn.functional.l1_loss(image, average) for image in images])
    l2 = torch.stack([torch.nn.functional.mse_loss(image, average) for image in images]).sqrt()
    torch.testing.assert_close(l1_distance(images, average), l1)
    torch.testing.assert_close(l2_distance(images, average), l2)

@distances
@pytest.mark.parametrize('shape', [(1,), (5, 783), (5, 1), ()])
def test_unequal_pixels_are_refused_and_not_stretched(distance, shape):
    with pytest.raises(ValueError, match='as many pixels'): distance(torch.zeros(5, 784), torch.zeros(shape))
    with pytest.raises(ValueError, match='as many pixels'): distance(torch.zeros(shape), torch.zeros(5, 784))

@distances
def test_one_image_one_pixel_and_no_image(distance):
    assert distance(tensor([[.25]]), tensor([.75])).tolist() == [.5]
    assert distance(torch.zeros(0, 784), torch.zeros(784)).shape == (0,)


# Averages.

x = tensor([[0., 1.], [2., 4.], [4., 7.], [1., 1.], [3., 0.]])

def test_an_average_per_label_smallest_label_first():
    averages = average_images(x, tensor([7, 3, 7, 3, 5]))           # labels in no order, and none from 0 to 2
    torch.testing.assert_close(averages, tensor([[1.5, 2.5], [3., 0.], [2., 4.]]))   # 3, 5, 7

def test_averages_of_one_image_and_of_one_label():
    assert torch.equal(average_images(x[:1], tensor([4])), x[:1])
    torch.testing.assert_close(average_images(x, torch.full((5,), 9)), tensor([[2., 2.6]]))

@pytest.mark.parametrize('dtype', [torch.uint8, torch.int32, torch.int64, torch.bool])
def test_labels_of_any_integer_dtype(dtype):
    labels = tensor([1, 0, 1, 0, 0])
    assert torch.equal(average_images(x, labels.to(dtype)), average_images(x, labels))

def test_averages_of_nothing_or_of_unequal_rows():
    with pytest.raises(ValueError, match='at least one'): average_images(torch.zeros(0, 784), torch.zeros(0).long())
    with pytest.raises(ValueError, match='x has 5 rows and y has 4'): average_images(x, tensor([0, 1, 2, 3]))


# The nearest average.

averages = tensor([[0., 0.], [1., 1.], [1., 0.]])

def test_the_nearest_row_for_each_image():
    images = tensor([[.9, .9], [.1, .2], [.8, .1], [0., .1]])       # four images, three averages: axes can't be swapped
    assert nearest_average(images, averages).tolist() == [1, 0, 2, 0]
    assert nearest_average(images, averages, l1_distance).tolist() == [1, 0, 2, 0]
    assert nearest_average(images, averages).dtype == torch.int64

def test_two_distances_two_opinions():
    image, two = torch.zeros(1, 4), tensor([[.3, .3, .3, .3], [0., 0., 0., 1.]])
    assert nearest_average(image, two).item() == 0                  # L2 unless another is named
    assert nearest_average(image, two, l2_distance).item() == 0
    assert nearest_average(image, two, l1_distance).item() == 1

def test_any_function_of_images_and_one_average_serves():
    furthest = lambda images, average: -l2_distance(images, average)
    assert nearest_average(averages, averages, furthest).tolist() == [1, 0, 0]

@distances
@pytest.mark.parametrize('n', [1, 2, 9, 10])
def test_each_average_is_nearest_to_itself(n, distance):
    g = torch.Generator().manual_seed(n)
    some = torch.rand(n, 784, generator=g)
    assert nearest_average(some, some, distance).tolist() == list(range(n))

def test_no_image_no_answer():
    assert nearest_average(torch.zeros(0, 2), averages).shape == (0,)

@pytest.mark.parametrize('images, means, message', [
    ((784,), (10, 784), r'x has the shape \(784,\); expected \(n,p\)'),
    ((5, 28, 28), (10, 784), r'x has the shape \(5, 28, 28\); expected \(n,p\)'),
    ((5, 784), (784,), r'averages has the shape \(784,\); expected \(c,p\)'),
    ((5, 784), (10, 783), 'as many pixels')])
def test_shapes_that_do_not_fit_are_named(images, means, message):
    with pytest.raises(ValueError, match=message): nearest_average(torch.zeros(images), torch.zeros(means))


# Where numbers come from.

def test_numpy_arrays_are_welcome():
    labels = tensor([7, 3, 7, 3, 5])
    means = average_images(x.numpy(), labels.numpy())
    assert torch.equal(means, average_images(x, labels))
    assert torch.equal(nearest_average(x.numpy(), means.numpy()), nearest_average(x, means))
    for distance in (l1_distance, l2_distance):
        assert torch.equal(distance(x.numpy(), x[0].numpy()), distance(x, x[0]))
        assert torch.equal(distance(x, x[0].numpy()), distance(x, x[0]))
    np.testing.assert_allclose(l2_distance(x.numpy().astype('float64'), x[0].numpy())[1], 13**.5/2**.5)

@pytest.mark.parametrize('words', ['three', None, object()])
def test_what_is_not_numbers(words):
    with pytest.raises(TypeError, match='expected numbers'): l1_distance(words, x)
    with pytest.raises(TypeError, match='expected numbers'): average_images(words, tensor([1]))

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_stay(dtype):
    for distance in (l1_distance, l2_distance): assert distance(x.to(dtype), x[0].to(dtype)).dtype == dtype
    assert average_images(x.to(dtype), tensor([0, 1, 0, 1, 2])).dtype == dtype

@pytest.mark.parametrize('device', devices)
def test_works_where_its_input_is(device):
    there, labels = x.to(device), tensor([0, 1, 0, 1, 2], device=device)
    means = average_images(there, labels)
    answers = nearest_average(there, means)
    assert means.device == answers.device == there.device
    torch.testing.assert_close(means.cpu(), average_images(x, labels.cpu()))
    assert torch.equal(answers.cpu(), nearest_average(x, means.cpu()))

def test_nothing_is_changed():
    before, labels = x.clone(), tensor([0, 1, 0, 1, 2])
    nearest_average(x, average_images(x, labels), l1_distance)
    assert torch.equal(x, before) and labels.tolist() == [0, 1, 0, 1, 2]
