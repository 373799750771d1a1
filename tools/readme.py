"""Make README.md from nbs/index.ipynb, as committed: its text, code and outputs; pictures and badges go to images/.

A cell with `#| echo: false` shows its output only, one with `#| include: false` nothing; `#| label: NAME` names a
picture. These are Quarto's words for it.
"""
import base64, re

import nbformat
from metadata import HOSTS
from series import NBS, ROOT

BADGE = '''<svg xmlns="http://www.w3.org/2000/svg" width="108" height="22" role="img" aria-label="Open in {host}">
<rect width="108" height="22" rx="4" fill="#1b4f9c"/>
<text x="54" y="15.5" fill="#fff" font-family="Verdana, DejaVu Sans, sans-serif" font-size="11" text-anchor="middle">open in {host}</text>
</svg>
'''


def shown(cell):
    "The outputs of a code cell, as blocks of Markdown."
    printed = ''
    for out in cell.outputs:
        data = out.get('data', {'text/plain': out.get('text', '')})
        if 'image/png' in data:
            name = re.search(r'#\| label: (\S+)', cell.source)[1]
            (ROOT/'images'/f'{name}.png').write_bytes(base64.b64decode(data['image/png']))
            yield f"![{out.metadata['image/png']['alt']}](../images/{name}.png)"
        elif 'text/markdown' in data: yield data['text/markdown']
        elif 'text/html' not in data: printed += data['text/plain']
    if printed.strip(): yield f'```\n{printed.strip()}\n```'


def markdown(cell):
    "The cell as blocks of Markdown, with links that hold from the repository's root."
    blocks = [cell.source] if cell.cell_type == 'markdown' else [
        *([] if '#| echo: false' in cell.source else [f'```python\n{cell.source}\n```']), *shown(cell)]
    if '#| include: false' in cell.source: blocks = []
    return [re.sub(r'\]\((?!http|\.\./)', '](nbs/', b).replace('](../', '](') for b in blocks]


if __name__ == '__main__':
    (ROOT/'images').mkdir(exist_ok=True)
    for host in HOSTS: (ROOT/'images'/f'{host.lower()}.svg').write_text(BADGE.format(host=host), encoding='utf-8')
    blocks = [b for cell in nbformat.read(NBS/'index.ipynb', as_version=4).cells for b in markdown(cell)]
    (ROOT/'README.md').write_text('\n\n'.join(blocks) + '\n', encoding='utf-8')
