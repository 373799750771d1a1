"The glossary: one sentence a term, linked to where the term is introduced, and no term of a chapter left out."
import re
from functools import cache

import nbformat

import series

glossary = (series.NBS/'glossary.md').read_text(encoding='utf-8')
entries = re.findall(r'^- \*\*(.+?)\*\*: (.+) \[(.+?)\]\(([^#)]+)#?(.*)\)$', glossary, re.M)

# What stands in bold and is no term: how a paragraph begins, and the steps of gradient descent.
not_terms = {'Sources.', 'Words.', 'An optimizer.', '`nn.Linear` and `optim.SGD`.', "fastai's `Learner`.",
             'Initialise', 'Predict', 'Repeat', 'stop'}


@cache
def sections(name):
    "The prose of the notebook `name` by the slugs of its headings, as GitHub and MyST make them; '' is before."
    slug, text = '', {'': ''}
    for cell in nbformat.read(series.NBS/name, as_version=4).cells:
        if cell.cell_type != 'markdown': continue
        for line in re.sub(r'```.*?```', '', cell.source, flags=re.S).splitlines():
            if heading := re.match('###? (.+)', line):
                slug = made = re.sub(r'[^\w\- ]', '', heading[1].lower().replace(' ', '-'))
                same = 0
                while slug in text: slug = f'{made}-{(same := same + 1)}'
            text[slug] = text.get(slug, '') + line + '\n'
    return text

def stem(word): return re.sub(r'(?<=\w{4})((at)?ion|s|d)$', '', word.lower())

def stands_in(term, text):
    "Whether each word of `term` stands in `text`, in some form: a frozen layer, layers that are frozen."
    return all(re.search(rf'(?<![a-z]){re.escape(stem(word))}', text.lower()) for word in re.split('[ -]', term))

def bold(text):
    "The phrases of at most three words that stand in bold in `text`, tables apart."
    phrases = re.findall(r'\*\*([^*\n]+)\*\*', re.sub(r'^\|.*', '', text, flags=re.M))
    return [phrase for phrase in phrases if len(phrase.split()) <= 3]


def test_a_sorted_list_without_doubles():
    terms = [term.lower() for term, *_ in entries]
    assert len(terms) == len(re.findall('^-', glossary, re.M)) and terms == sorted(set(terms))


def test_one_sentence_each_without_figures_that_could_change():
    assert not [sentence for _, sentence, *_ in entries if not re.fullmatch(r'[^.?!%]+\.', sentence)]


def test_links_lead_to_a_heading_under_which_the_term_stands():
    for term, _, label, name, slug in entries:
        expected = name[:2] if name[0].isdigit() else name.removesuffix('.ipynb').replace('appendix_', 'appendix on ')
        assert label == expected, term
        assert slug in sections(name), f'{term}: {name} has no heading {slug}'
        assert stands_in(term, sections(name)[slug]), f'{term} does not stand under {name}#{slug}'


def test_what_the_chapters_set_in_bold_is_in_the_glossary():
    terms = [stem(term) + ' ' for term, *_ in entries]
    for path in series.NBS.glob('*_*.ipynb'):
        for slug, text in sections(path.name).items():
            for phrase in bold(text) if slug != 'exercises' else []:
                known = phrase in not_terms or any(term.startswith(stem(phrase) + ' ') for term in terms)
                assert known, f'{phrase!r}, in {path.name}, is neither in the glossary nor in not_terms'
