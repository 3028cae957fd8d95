"""Makes world/assets (glyph distance fields from the DejaVu fonts, small photographs) and tokenizer.json. Run once; the results are committed.

    python -m deploy.demo_model.build_assets glyphs | photos FOLDER | tokenizer"""
import os
import sys
import numpy as np
from .world.names import CHARS, SHAPES, COLORS, WORDS
from .world.render import GLYPH_H, GLYPH_W, HERE

FONTS = ["DejaVuSansMono-Bold.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansCondensed-Bold.ttf"]
PHOTOS = ["astronaut.png", "balloon.jpg", "elephant-660-480.jpg", "gecko-320-213.jpg", "harvesters.jpeg", "hibiscus.regular.jpeg", "leopard.jpg",
          "painted-hand-298-332.jpg", "plumeria-146x200.jpg", "surfer-240-200.jpg"]
REGEX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def glyphs(folder="/usr/share/fonts/truetype/dejavu"):
    """Signed distance of every character in a cell, in units of the cell height, stored as int8 (127 = 0.15)."""
    from PIL import Image, ImageDraw, ImageFont
    out = np.zeros((len(FONTS), len(CHARS), GLYPH_H, GLYPH_W), np.int8)
    yy, xx = np.meshgrid(np.arange(GLYPH_H), np.arange(GLYPH_W), indexing="ij")
    pts = np.stack([yy.ravel(), xx.ravel()], 1).astype(np.float32)
    for fi, fn in enumerate(FONTS):
        font = ImageFont.truetype(os.path.join(folder, fn), int(GLYPH_H * (1.14 if fi == 0 else 1.08)))
        for ci, ch in enumerate(CHARS):
            im = Image.new("L", (GLYPH_W * 2, GLYPH_H * 2), 0)
            ImageDraw.Draw(im).text((GLYPH_W, GLYPH_H), ch, fill=255, font=font, anchor="mm")
            box = im.getbbox()
            w = box[2] - box[0]
            if w > GLYPH_W - 2:                                     # a wide letter is squeezed into its cell
                crop = im.crop(box).resize((GLYPH_W - 2, box[3] - box[1]))
                im = Image.new("L", im.size, 0); im.paste(crop, (GLYPH_W - (GLYPH_W - 2) // 2, box[1]))
            a = np.array(im)[GLYPH_H // 2:GLYPH_H // 2 + GLYPH_H, GLYPH_W // 2:GLYPH_W // 2 + GLYPH_W] > 127
            m = a.ravel()
            d2 = ((pts[:, None] - pts[None]) ** 2).sum(-1)
            d = np.where(m, -np.sqrt(d2[:, ~m].min(1)) + 0.5, np.sqrt(d2[:, m].min(1)) - 0.5) / GLYPH_H
            out[fi, ci] = np.clip(np.rint(d / 0.15 * 127), -127, 127).reshape(GLYPH_H, GLYPH_W)
    np.save(os.path.join(HERE, "glyphs.npy"), out)


def photos(folder):
    from PIL import Image
    for f in PHOTOS:
        im = Image.open(os.path.join(folder, f)).convert("RGB")
        s = min(im.size)
        im = im.crop(((im.width - s) // 2, (im.height - s) // 2, (im.width + s) // 2, (im.height + s) // 2)).resize((192, 192), Image.LANCZOS)
        im.save(os.path.join(HERE, f.split(".")[0].split("-")[0] + ".jpg"), quality=82)


def tokenizer(vocab=2048, extra=()):
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from .world.questions import ask, ask_picture, ask_two, sample_pair
    from .world.scene import sample_scene
    rng = np.random.default_rng(7)
    corpus = ["You are a helpful assistant.", "system\n", "user\n", "assistant\n"] * 400
    for i in range(5000):
        sc = sample_scene(rng, int(rng.integers(2, 30)), 168, 224, rng.uniform(0, 1), "all")
        qs = ask(sc, rng, 6, "all")
        if i % 5 == 0:
            kind = ["two_clips", "picture_clip"][i // 5 % 2]
            a, b = sample_pair(rng, [(6, 168, 168), (8, 168, 168)], 1.0, "all", kind)
            qs += (ask_two if kind == "two_clips" else ask_picture)(a, b, rng, 4, "all")
        corpus += [x for q in qs for t in q["turns"] for x in t]
    corpus += [p + w for w in WORDS + SHAPES + COLORS for p in ("", " ")] * 40
    for f in extra:                                               # plain English, so that other texts do not fall apart into bytes
        with open(f, encoding="utf-8") as h: corpus += h.read().split("\n")
    t = Tokenizer(models.BPE(byte_fallback=False))
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(REGEX), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=vocab - 22, min_frequency=2, special_tokens=[], show_progress=False,
                                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in
                          ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>",
                           "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]])
    t.add_tokens([AddedToken(n, special=False, normalized=False) for n in
                  ["<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"]])
    t.save(os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer.json"))
    print("tokenizer entries", t.get_vocab_size(), "e.g.", t.encode("<|im_start|>user\nWhat color is the moving object?<|im_end|>").tokens)


if __name__ == "__main__":
    if sys.argv[1] == "glyphs": glyphs()
    elif sys.argv[1] == "photos": photos(sys.argv[2])
    else: tokenizer(extra=sys.argv[2:])
