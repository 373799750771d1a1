"""The pages on the package for the site: each public name of a module with its signature, its docments, and a link into
the chapter that builds it."""
import ast, inspect, re, textwrap
from importlib import import_module

import nbformat
from fastcore.docments import docments
from mdit_py_plugins.anchors.index import slugify
from series import NBS, chapters

notebooks = chapters + sorted(NBS.glob('appendix_*.ipynb'))


def title(nb):
    "The notebook's title, up to the colon."
    return re.search(r'^# ([^:\n]+)', '\n'.join(c.source for c in nb.cells if c.cell_type == 'markdown'), re.M)[1].strip()


def module_of(nb): return re.search(r'^#\| default_exp (\w+)', '\n'.join(c.source for c in nb.cells), re.M)[1]


def built_in(nb):
    "The heading under which each name is exported, and its anchor."
    places, heading, used = {}, (title(nb), ''), []
    for cell in nb.cells:
        if cell.cell_type == 'markdown':
            for text in re.findall(r'^#{2,3} (.+)', re.sub(r'```.*?```', '', cell.source, flags=re.S), re.M):
                plain = re.sub(r'[`*$]|\[([^\]]*)\]\([^)]*\)', r'\1', text)
                slug = slugify(plain)
                heading = plain, f'#{slug}' + (f'-{used.count(slug)}' if slug in used else '')
                used.append(slug)
        elif cell.source.startswith('#| export'):
            for node in ast.parse(cell.source).body:
                names = [node.name] if hasattr(node, 'name') else [t.id for t in getattr(node, 'targets', []) if hasattr(t, 'id')]
                for name in names: places.setdefault(name, heading)
    return places


def signature(f):
    "As it stands in the source, `self` apart."
    node = ast.parse(textwrap.dedent(inspect.getsource(f))).body[0]
    node.args.args = [arg for arg in node.args.args if arg.arg not in ('self', 'cls')]
    return f'({ast.unparse(node.args)})' + (f' -> {ast.unparse(node.returns)}' if node.returns else '')


def described(kind, name, thing, f=None, parts=()):
    "A directive for `thing`, whose parameters are those of `f`; `parts` are directives inside it."
    text, fields = inspect.cleandoc(thing.__doc__ or ''), []
    for parameter, doc in docments(f, full=True, returns=True).items() if f else ():
        if parameter == 'return' and doc.anno in (None, inspect._empty): text = text or doc.docment or ''      # says what it does
        elif doc.docment: fields.append(f':returns: {doc.docment}' if parameter == 'return' else f':param {parameter}: {doc.docment}')
    fence = ':::' + ':'*bool(parts)
    return '\n'.join([f'{fence}{{py:{kind}}} {name}{signature(f) if f else ""}', '', text, '', *fields, '', *parts, fence])


def class_parts(cls):
    "Directives for the public methods and properties that the class itself has."
    for name, thing in vars(cls).items():
        if name.startswith('_') and name != '__call__': continue
        f = inspect.unwrap(getattr(thing, '__func__', thing))
        if isinstance(thing, property): yield described('property', name, thing)
        elif inspect.isfunction(f): yield described('method', name, f, f)


def entry(name, thing):
    "The directive for a public name."
    f = inspect.unwrap(thing) if callable(thing) else None
    if inspect.isclass(f):
        own = vars(f).get('__init__')
        written = inspect.isfunction(own) and '<' not in own.__code__.co_filename        # not by a dataclass
        return described('class', name, f, own if written else None, list(class_parts(f)))
    if inspect.isfunction(f): return described('function', name, f, f)
    return f':::{{py:data}} {name}\n:type: {type(thing).__name__}\n:::'


def page(path):
    "The module that the notebook at `path` exports, as (name of the page, its text)."
    nb = nbformat.read(path, as_version=4)
    name, places = module_of(nb), built_in(nb)
    module = import_module(f'mnist_foundations.{name}')
    text = [f'# {name}', f':::{{py:module}} mnist_foundations.{name}\n:::']
    last = None
    for public in module.__all__:
        heading, anchor = places.get(public, (title(nb), ''))
        if heading != last: text.append(f'## {heading}\n\n*Built in* [{title(nb)}](../nbs/{path.name}{anchor})')
        last = heading
        text.append(entry(public, getattr(module, public)))
    return name, '\n\n'.join(text) + '\n'


def write_pages(folder):
    "Write a page for each module into `folder`, and one that lists them."
    folder.mkdir()
    names = []
    for path in notebooks:
        name, text = page(path)
        (folder/f'{name}.md').write_text(text, encoding='utf-8')
        names.append(name)
    listed = '\n'.join(['# The package', '', '`mnist_foundations` module by module, in the order of the chapters: shapes, types, what is raised, '
                        'and the source.', '', ':::{toctree}', ':maxdepth: 1', ':titlesonly:', '', *names, ':::', ''])
    (folder/'index.md').write_text(listed, encoding='utf-8')
