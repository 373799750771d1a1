"""Derive in each notebook what a renderer or a host reads from what a person writes, and leave out what only a running
kernel shows.

A cell folded in JupyterLab (`jupyter.source_hidden`) gets the tag `hide-input`, and a cell that draws gets its
pictures' alt text, which the renderers lose where it stands, as `mystnb.image.alt`. A widget's output is left with its
picture. From settings.ini come the cell that installs the package where it is missing, the links that open a chapter
on a host of notebooks, the address to clone, and what is cited. Running it again changes nothing.
"""
import re
from configparser import ConfigParser

import nbformat
from series import NBS, ROOT

INSTALL = '''# Where the package is missing, as on Colab and Kaggle, install it, and leave a PyTorch that is there as it is.
from importlib.metadata import version
from importlib.util import find_spec
if not find_spec('mnist_foundations'):
    torch_there = f"torch=={version('torch')}" if find_spec('torch') else ''
    %pip install -q {torch_there} "$lib_name @ git+$git_url@$branch"'''
HOSTS = {'Colab': 'https://colab.research.google.com/github/$user/$repo/blob/$branch/$nbs_path/',
         'Kaggle': 'https://kaggle.com/kernels/welcome?src=$git_url/blob/$branch/$nbs_path/'}


def settings():
    "What settings.ini says."
    config = ConfigParser(delimiters=['='])
    config.read(ROOT/'settings.ini', encoding='utf-8')
    return config['DEFAULT']


def filled(text, cfg): return re.sub(r'\$([a-z_]+)', lambda name: cfg[name[1]], text)


def alts(cell):
    "The alt text of each picture that the cell shows; '' where it has none."
    return [out.metadata.get('image/png', {}).get('alt') or cell.metadata.get('alt', '')
            for out in cell.get('outputs', []) if 'image/png' in out.get('data', {})]


def derive(cell):
    "Set the cell's tags and its `mystnb.image.alt`, or take them away."
    meta = cell.metadata
    tags = [tag for tag in meta.pop('tags', []) if tag not in ('hide-input', 'remove-cell')]
    if '#| default_exp' in cell.source: tags.append('remove-cell')      # of no use to who only reads
    if meta.get('jupyter', {}).get('source_hidden'): tags.append('hide-input')
    if tags: meta['tags'] = tags
    meta.pop('mystnb', None)
    for out in cell.get('outputs', []): out.get('data', {}).pop('application/vnd.jupyter.widget-view+json', None)
    if alt := ' '.join(dict.fromkeys(filter(None, alts(cell)))): meta['mystnb'] = {'image': {'alt': alt}}


def address(cell, name, cfg):
    "Write into the cell of notebook `name` what depends on where the project is hosted."
    if module := re.match(r'#\| default_exp \w+', cell.source):
        cell.source = f'{module[0]}\n{filled(INSTALL, cfg)}'
        cell.metadata['jupyter'] = {'source_hidden': True}
    elif name == 'index':
        cell.source = re.sub(r'(?<=git clone )\S+', filled('$git_url.git', cfg), cell.source)
        badges = ' '.join(f'[![Open chapter 00 in {host}](../images/{host.lower()}.svg)]({filled(place, cfg)}00_data.ipynb)'
                          for host, place in HOSTS.items())
        cell.source = re.sub(r'\[!\[Open chapter 00.*', lambda _: badges, cell.source)
    elif cell.cell_type == 'markdown' and cell.source.startswith('# ') and name[0].isdigit():
        opens = ' or '.join(f'[{host}]({filled(place, cfg)}{name}.ipynb)' for host, place in HOSTS.items())
        cell.source = re.sub(r'\n\n\*Without installing:\*.*|$', lambda _: f'\n\n*Without installing:* open it in {opens}.', cell.source, count=1)


def cite(file, cfg):
    "Bring version and address in the citation in step."
    text = re.sub(r'(?m)^version: .*', f"version: {cfg['version']}", file.read_text(encoding='utf-8'))
    file.write_text(re.sub(r'(?m)^repository-code: .*', f"repository-code: {cfg['git_url']}", text), encoding='utf-8')


if __name__ == '__main__':
    cfg = settings()
    for path in sorted(NBS.glob('*.ipynb')):
        nb = nbformat.read(path, as_version=4)
        was = nbformat.writes(nb)
        for cell in nb.cells:
            address(cell, path.stem, cfg)
            derive(cell)
        if nbformat.writes(nb) != was: nbformat.write(nb, path)
    cite(ROOT/'CITATION.cff', cfg)
