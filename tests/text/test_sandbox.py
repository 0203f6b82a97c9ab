from __future__ import annotations

import tracemalloc

import jinja2
import pytest

from gptnode.text.sandbox import BoundedEnvironment, TemplateTooLargeError


def rendered(source: str, **values: object) -> str:
    environment = BoundedEnvironment()
    template = environment.from_string(source)
    environment.start()
    return template.render(**values)


ENDLESS = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}"
    "{% endfor %}{% endfor %}",
    "loop over text": "{% for a in 'x' * 300000 %}{% endfor %}",
    "recursive macro": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "large range": "{{ range(10**9) | list }}",
    "endless map": "{% for a in range(99999) %}{% set b = range(99999) | map('string') | list %}"
    "{% endfor %}",
    "loop of a filter": "{% for a in (range(99999) | map('int')) %}{% for b in range(9999) %}"
    "{% endfor %}{% endfor %}",
}
HUGE = {
    "product": "{{ 'x' * 10**10 }}",
    "list product": "{{ [0] * 10**9 }}",
    "doubling with +": "{% set n = namespace(t='xx') %}{% for i in range(60) %}"
    "{% set n.t = n.t + n.t %}{% endfor %}",
    "doubling with ~": "{% set n = namespace(t='xx') %}{% for i in range(60) %}"
    "{% set n.t = n.t ~ n.t %}{% endfor %}",
    "doubling a list": "{% set n = namespace(t=[1]) %}{% for i in range(60) %}"
    "{% set n.t = n.t + n.t %}{% endfor %}",
    "nested lists": "{% set n = namespace(t=[1]) %}{% for i in range(60) %}"
    "{% set n.t = [n.t, n.t] %}{% endfor %}{{ n.t }}",
    "nested lists as json": "{% set n = namespace(t=[1]) %}{% for i in range(60) %}"
    "{% set n.t = [n.t, n.t] %}{% endfor %}{{ n.t | tojson }}",
    "nested lists as text": "{% set n = namespace(t=[1]) %}{% for i in range(60) %}"
    "{% set n.t = {'a': n.t, 'b': n.t} %}{% endfor %}{{ 'x' ~ n.t }}",
    "center": "{{ 'x' | center(10**9) }}",
    "ljust": "{{ 'x'.ljust(10**9) }}",
    "zfill": "{{ 'x'.zfill(10**9) }}",
    "indent": "{{ 'x\ny' | indent(10**9) }}",
    "json indent": "{{ [1] | tojson(indent=10**9) }}",
    "replace filter": "{{ ('x' * 100000) | replace('x', 'y' * 100000) }}",
    "replace method": "{{ ('x' * 100000).replace('x', 'y' * 100000) }}",
    "join": "{{ range(99999) | join('y' * 100000) }}",
    "join method": "{{ ('y' * 100000).join(('x ' * 90000).split()) }}",
    "percent": "{{ '%1000000000d' % 1 }}",
    "percent star": "{{ '%*d' % (1000000000, 1) }}",
    "format filter": "{{ '%1000000000d' | format(1) }}",
    "format method": "{{ '{:1000000000}'.format(1) }}",
    "format method from an argument": "{{ '{:{}}'.format(1, 1000000000) }}",
    "power": "{{ 10 ** (10 ** 10) }}",
    "factors": "{% set n = namespace(t=9999999999) %}{% for i in range(60) %}"
    "{% set n.t = n.t * n.t %}{% endfor %}",
    "batch": "{{ [1] | batch(10**9, 'x') | list }}",
}


@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS)
def test_a_template_that_runs_too_long_is_stopped(source: str) -> None:
    with pytest.raises((TemplateTooLargeError, OverflowError, RecursionError)):
        rendered(source)


@pytest.mark.parametrize("source", HUGE.values(), ids=HUGE)
def test_a_template_that_makes_too_much_is_stopped_before_it_does(source: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises((TemplateTooLargeError, jinja2.exceptions.SecurityError)):
            rendered(source)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 128 * 2**20


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ namespace(__class__=1) }}",
        "{% set n = namespace() %}{% set n.__class__ = 1 %}",
        "{{ raise_exception.__globals__.os }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ self.environment.spend }}{{ environment.filters.x }}",
        "{% include 'other' %}",
        "{{ lipsum(10) }}",
    ],
)
def test_the_way_to_python_is_closed(source: str) -> None:
    with pytest.raises((jinja2.TemplateError, TypeError)):
        rendered(source, messages=[1])


def test_each_rendering_has_its_own_budget() -> None:
    environment = BoundedEnvironment()
    template = environment.from_string("{% for i in range(90000) %}{% endfor %}done")
    for _ in range(5):
        environment.start()
        assert template.render() == "done"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for i in [1,2,3] %}{{ loop.index }}/{{ loop.length }} {% endfor %}", "1/3 2/3 3/3 "),
        ("{% for i in [] %}{% else %}empty{% endfor %}", "empty"),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}", "a=1"),
        ("{% for k in {'a': 1} %}{{ k }}{% endfor %}", "a"),
        ("{% for a in range(3) if a != 1 %}{{ a }}{% endfor %}", "02"),
        ("{% for a in [1,[2,[3]]] recursive %}{% if a is iterable %}{{ loop(a) }}{% else %}"
         "{{ a }}{% endif %}{% endfor %}", "123"),
        ("{{ 'a' ~ 1 ~ none }}", "a1None"),
        ("{{ '<&>' | tojson }}", '"<&>"'),
        ("{{ ['b', 'a'] | sort | join('-') }}", "a-b"),
        ("{{ ' x ' | trim | upper | center(5) }}", "  X  "),
        ("{{ '%s is %03d' % ('it', 7) }} {{ '%d' | format(3) }} {{ '{:>3}'.format(1) }}",
         "it is 007 3   1"),
        ("{{ 'a,b'.split(',') | map('upper') | list }}", "['A', 'B']"),
        ("{{ ('x' * 3) + 'y' }}{{ 2 ** 3 }}{{ 7 % 3 }}{{ 1.5 * 2 }}", "xxxy813.0"),
        ("{% generation %}a{% set x = 1 %}{% endgeneration %}{{ x is defined }}", "aFalse"),
        ("  {% if true %}\n  a\n  {% endif %}\nb", "  a\nb"),
        ("{{ missing }}|{{ none }}", "|None"),
    ],
)  # fmt: skip
def test_ordinary_templates_work_as_in_jinja(source: str, text: str) -> None:
    assert rendered(source) == text
