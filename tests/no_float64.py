"Tensors that stand for a device without float64, as Apple's GPUs are."
import torch


class NoFloat64(torch.Tensor):
    "A tensor from which only `.cpu()` leads away: on its device nothing is float64, and NumPy cannot read it."
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func in (torch.Tensor.numpy, torch.Tensor.__array__): raise TypeError('NumPy reads only what is on the CPU: use .cpu()')
        out = super().__torch_function__(func, types, args, kwargs or {})
        if func is torch.Tensor.cpu: return out.as_subclass(torch.Tensor)
        for made in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(made, torch.Tensor) and made.dtype == torch.float64: raise TypeError('this device has no float64')
        return out
    def __deepcopy__(self, memo): return self.detach().clone().requires_grad_(self.requires_grad)     # PyTorch's own refuses


def there(tensor):
    "The tensor on a device without float64; a leaf if it was one."
    return tensor.detach().as_subclass(NoFloat64).requires_grad_(tensor.requires_grad)
