"""Derive in each notebook what the site reads from what a person writes, and leave out what only a running kernel shows.

A cell folded in JupyterLab (`jupyter.source_hidden`) gets the tag `hide-input`, and a cell that draws gets its
pictures' alt text, which the renderers lose where it stands, as `mystnb.image.alt`. A widget's output is left with its
picture. Running it again changes nothing.
"""
import nbformat
from series import NBS


def alts(cell):
    "The alt text of each picture that the cell shows; '' where it has none."
    return [out.metadata.get('image/png', {}).get('alt') or cell.metadata.get('alt', '')
            for out in cell.get('outputs', []) if 'image/png' in out.get('data', {})]


def derive(cell):
    "Set the cell's tag and its `mystnb.image.alt`, or take them away."
    meta = cell.metadata
    tags = [tag for tag in meta.pop('tags', []) if tag != 'hide-input']
    if meta.get('jupyter', {}).get('source_hidden'): tags.append('hide-input')
    if tags: meta['tags'] = tags
    meta.pop('mystnb', None)
    for out in cell.get('outputs', []): out.get('data', {}).pop('application/vnd.jupyter.widget-view+json', None)
    if alt := ' '.join(dict.fromkeys(filter(None, alts(cell)))): meta['mystnb'] = {'image': {'alt': alt}}


if __name__ == '__main__':
    for path in sorted(NBS.glob('*.ipynb')):
        nb = nbformat.read(path, as_version=4)
        was = nbformat.writes(nb)
        for cell in nb.cells: derive(cell)
        if nbformat.writes(nb) != was: nbformat.write(nb, path)
