"""Small networks of the usual shapes in plain torch.nn: random weights, the operators and control flow of the real ones."""

import torch
from torch import nn
from torch.nn import functional as F


def conv(cin, cout, k=3, stride=1, groups=1, act=nn.ReLU):
    layers = [nn.Conv2d(cin, cout, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(cout)]
    return nn.Sequential(*layers, *([act()] if act else []))


class Squeeze(nn.Module):
    def __init__(self, c, act, gate):
        super().__init__()
        self.a, self.b, self.act, self.gate = nn.Conv2d(c, c // 4, 1), nn.Conv2d(c // 4, c, 1), act(), gate()

    def forward(self, x):
        return x * self.gate(self.b(self.act(self.a(F.adaptive_avg_pool2d(x, 1)))))


class Residual(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.body = nn.Sequential(conv(cin, cout, 3, stride), conv(cout, cout, act=None))
        self.skip = conv(cin, cout, 1, stride, act=None) if stride > 1 or cin != cout else nn.Identity()

    def forward(self, x):
        return F.relu(self.body(x) + self.skip(x))


def resnet():
    return nn.Sequential(
        conv(3, 16, 7, 2),
        nn.MaxPool2d(3, 2, 1),
        Residual(16, 16, 1),
        Residual(16, 32, 2),
        Residual(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


class Inverted(nn.Module):
    def __init__(self, cin, cout, stride, act, gate):
        super().__init__()
        mid = cin * 4
        self.body = nn.Sequential(
            conv(cin, mid, 1, act=act),
            conv(mid, mid, 3, stride, mid, act),
            Squeeze(mid, act, gate),
            conv(mid, cout, 1, act=None),
        )
        self.same = stride == 1 and cin == cout

    def forward(self, x):
        y = self.body(x)
        return x + y if self.same else y


def mobilenet_v3():
    return nn.Sequential(
        conv(3, 16, 3, 2, act=nn.Hardswish),
        Inverted(16, 16, 1, nn.ReLU, nn.Hardsigmoid),
        Inverted(16, 24, 2, nn.Hardswish, nn.Hardsigmoid),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 32),
        nn.Hardswish(),
        nn.Dropout(),
        nn.Linear(32, 10),
    )


def efficientnet():
    return nn.Sequential(
        conv(3, 16, 3, 2, act=nn.SiLU),
        Inverted(16, 16, 1, nn.SiLU, nn.Sigmoid),
        Inverted(16, 24, 2, nn.SiLU, nn.Sigmoid),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
    )


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.mid = conv(3, 8), conv(8, 16), conv(16, 32)
        self.up2, self.up1 = nn.ConvTranspose2d(32, 16, 2, 2), nn.Upsample(scale_factor=2, mode="bilinear")
        self.c2, self.c1, self.out = conv(32, 16), conv(24, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.c2(torch.cat([self.up2(self.mid(F.max_pool2d(b, 2))), b], 1))
        return self.out(self.c1(torch.cat([self.up1(c), a], 1)))


def attend(q, k, v, heads=2):
    b, n, c = q.shape
    q, k, v = (t.reshape(b, -1, heads, c // heads).transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)


class DiffusionBlock(nn.Module):
    """A U-Net block of a diffusion model: time embedding, group norm, SiLU, self and cross attention."""

    def __init__(self, c=16):
        super().__init__()
        self.n1, self.n2, self.n3 = nn.GroupNorm(4, c), nn.GroupNorm(4, c), nn.GroupNorm(4, c)
        self.c1, self.c2, self.time = nn.Conv2d(c, c, 3, 1, 1), nn.Conv2d(c, c, 3, 1, 1), nn.Linear(c, c)
        self.qkv, self.proj, self.kv, self.q = (
            nn.Linear(c, 3 * c),
            nn.Linear(c, c),
            nn.Linear(12, 2 * c),
            nn.Linear(c, c),
        )

    def forward(self, x, t, text):
        half = torch.exp(torch.arange(8, device=x.device) * -0.9)
        emb = torch.cat([torch.sin(t[:, None] * half), torch.cos(t[:, None] * half)], -1)
        h = self.c1(F.silu(self.n1(x))) + self.time(F.silu(emb))[:, :, None, None]
        x = x + self.c2(F.silu(self.n2(h)))
        b, c, hh, w = x.shape
        s = self.n3(x).reshape(b, c, hh * w).transpose(1, 2)
        s = s + self.proj(attend(*self.qkv(s).chunk(3, -1)))
        s = s + attend(self.q(s), *self.kv(text).chunk(2, -1))
        return x + s.transpose(1, 2).reshape(b, c, hh, w)


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.lstm, self.out = (
            nn.Embedding(50, 12),
            nn.LSTM(12, 10, 2, batch_first=True, bidirectional=True),
            nn.Linear(20, 5),
        )

    def forward(self, x):
        return self.out(self.lstm(self.emb(x))[0])


class Window(nn.Module):
    """A Swin block: cyclic shift, windows of 4x4, masked attention, window merge."""

    def __init__(self, c=16, heads=2, shift=2):
        super().__init__()
        self.c, self.heads, self.shift = c, heads, shift
        self.n1, self.n2, self.qkv, self.proj = nn.LayerNorm(c), nn.LayerNorm(c), nn.Linear(c, 3 * c), nn.Linear(c, c)
        self.mlp = nn.Sequential(nn.Linear(c, 2 * c), nn.GELU(), nn.Linear(2 * c, c))
        self.bias = nn.Parameter(torch.randn(heads, 16, 16))

    def forward(self, x):
        b, h, w, c = x.shape
        y = torch.roll(self.n1(x), (-self.shift, -self.shift), (1, 2))
        y = y.reshape(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        q, k, v = self.qkv(y).reshape(-1, 16, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        a = (q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5 + self.bias).softmax(-1)
        y = self.proj((a @ v).transpose(1, 2).reshape(-1, 16, c))
        y = y.reshape(b, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        x = x + torch.roll(y, (self.shift, self.shift), (1, 2))
        return x + self.mlp(self.n2(x))


class Swin(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch, self.a, self.b = nn.Conv2d(3, 16, 4, 4), Window(shift=0), Window(shift=2)
        self.merge, self.head = nn.Linear(64, 32), nn.Linear(32, 10)

    def forward(self, x):
        x = self.b(self.a(self.patch(x).permute(0, 2, 3, 1)))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.head(self.merge(x).mean((1, 2)))


class Detector(nn.Module):
    """A one-stage head: boxes, scores and the candidates above a threshold, a size that only the data knows."""

    def __init__(self):
        super().__init__()
        self.body, self.box, self.score = (
            nn.Sequential(conv(3, 8, 3, 2), conv(8, 16, 3, 2)),
            nn.Conv2d(16, 4, 1),
            nn.Conv2d(16, 3, 1),
        )

    def candidates(self, x):
        f = self.body(x)
        boxes = self.box(f).flatten(2).transpose(1, 2)[0]
        return boxes, *self.score(f).flatten(2).sigmoid()[0].max(0)

    def forward(self, x):
        boxes, best, label = self.candidates(x)
        keep = torch.nonzero(best > 0.5).squeeze(1)
        return boxes[keep], best[keep], label[keep]


class Suppressing(Detector):
    """The same with boxes around the cells of the grid, of which non-maximum suppression keeps the best."""

    def forward(self, x):
        boxes, best, label = self.candidates(x)
        n = x.shape[-1] // 4
        at = torch.arange(n, dtype=torch.float32)
        y, x0 = at.repeat_interleave(n), at.repeat(n)
        size = boxes[:, 2:].exp() + 1
        middle = torch.stack([y, x0], -1) + boxes[:, :2].tanh()
        boxes = torch.cat([middle - size / 2, middle + size / 2], -1)
        keep = torch.ops.zenith.nms(boxes, best)
        return boxes[keep], best[keep], label[keep]
