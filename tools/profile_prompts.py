"""Prompts as people write them, drawn from stems with slots, for training the profile head.

A line of a list below is `difficulty tokens | stem`: how hard its prompts are in [0, 1], and about
how long their answers get. A stem belongs to one split whatever fills its slots.
"""

# ruff: noqa: E501, SIM905 - a stem is one line, and lists of words read best as words

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Final, Literal

Split = Literal["train", "heldout"]

HELDOUT_PERCENT: Final = 25
_SLOT: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stem:
    """A prompt with slots to fill."""

    kind: str
    text: str
    difficulty_ratio: float
    output_tokens: float

    @property
    def split(self) -> Split:
        """The one split that owns this stem."""
        bucket = int.from_bytes(blake2b(self.text.encode(), digest_size=8).digest()) % 100
        return "heldout" if bucket < HELDOUT_PERCENT else "train"


CODE: Final = r"""
.2 60 | Write a {lang} function that {easy_fn}.
.2 60 | {lang} function to {easy_do}
.2 80 | How do I {easy_do} in {lang}?
.25 80 | can you write me a quick {lang} script to {easy_do}
.3 120 | Implement a function in {lang} which {easy_fn}. Include type hints and a docstring.
.7 400 | Implement {algorithm} in {lang}.
.7 450 | Write {algorithm} in {lang} from scratch, with tests.
.75 400 | I need an efficient implementation of {algorithm} in {lang}. It must handle {n} million elements.
.65 350 | Show me how {algorithm} works with a {lang} example.
.8 600 | Design and implement a thread-safe {structure} in {lang}.
.7 400 | Write a {lang} class for a {structure} with insert, delete and lookup in O(log n).
.4 200 | Fix the bug in this code:\n{snippet}
.4 200 | Why does this not work?\n```\n{snippet}\n```
.35 150 | What does the following code do?\n\n{snippet}
.3 120 | What is the output of this?\n{snippet}
.3 60 | {snippet}\nWhat gets printed?
.45 250 | Refactor this so that it is easier to read:\n\n{snippet}
.4 250 | Add type hints and error handling to this function:\n{snippet}
.45 300 | Write unit tests for the function below.\n{snippet}
.5 250 | I'm getting `{error}` when I run my {lang} program. How do I fix it?
.5 250 | {error}\n  at line {n} — what is wrong?
.45 200 | My {lang} code throws {error} on line {n}, here it is: {snippet}
.5 250 | Traceback (most recent call last):\n  File "main.py", line {n}, in <module>\n    {expr}\n{error}
.55 250 | Getting {error} after upgrading to the latest {framework}. Any idea why?
.35 120 | Write a SQL query that {sql_do}.
.35 100 | SQL: {sql_do}
.6 200 | Given tables orders(id, customer_id, total, placed_at) and customers(id, name, city), write a query that {sql_hard}.
.5 200 | Why is this query slow?\nSELECT * FROM {table} WHERE lower({column}) = 'x' ORDER BY {column};
.4 150 | How do I add an index on {column} of {table} in PostgreSQL without locking?
.35 80 | Write a regex that matches {pattern}.
.35 80 | regex for {pattern}
.4 120 | Explain this regex: ^{regex}$
.3 100 | Convert this {lang} code to {lang2}:\n{snippet}
.4 200 | Translate the function below from {lang} into idiomatic {lang2}.\n\n{snippet}
.3 60 | How do I undo my last git commit without losing the changes?
.3 80 | git: how can I {git_do}?
.3 100 | Give me the bash command to {shell_do}.
.3 80 | shell one-liner that can {shell_do}
.35 150 | Write a Dockerfile for a {lang} application that uses {framework}.
.45 250 | Write a docker-compose file with {framework} and a PostgreSQL database.
.5 300 | Create a REST endpoint in {framework} that {easy_fn}.
.5 350 | Build a {framework} component that shows a table of {thing} with sorting and paging.
.6 500 | Set up authentication with JWT in {framework}.
.65 450 | Write a Kubernetes manifest for a service with {n} replicas, probes and autoscaling.
.3 90 | What's the difference between {concept} and {concept2} in {lang}?
.4 200 | Explain {concept} in {lang} with a small example.
.35 150 | When should I use {concept} instead of {concept2}?
.5 250 | What's the time complexity of this?\n{snippet}
.65 300 | This {lang} function is too slow for {n}000 rows, please optimise it:\n{snippet}
.55 300 | Review this pull request:\n{snippet}
.2 30 | What does {expr} evaluate to in Python?
.2 15 | {expr}
.2 15 | >>> {expr}
.25 20 | print({expr})
.2 20 | Evaluate the Python expression {expr}
.25 20 | what will {expr} return
.25 40 | Complete the function:\ndef {name}({arg}):\n    # returns {desc}\n    return
.25 40 | Finish this one-liner: {name} = lambda {arg}:
.3 100 | def {name}({arg}):\n    # TODO: {easy_do}
.25 15 | How many times does this loop run: for i in range({n}, {m}, 2)?
.25 10 | What is len({expr})?
.25 20 | In JavaScript, what is the value of [1, 2, 3].map(x => x * {n})?
.25 20 | what does '{word}'.upper()[::-1] give
.2 15 | Reverse the string '{word}'.
.2 15 | Remove every vowel from '{word}'.
.25 15 | Replace each '{letter}' with '{letter2}' in {word}
.4 220 | Write a CSS rule that centres a div both vertically and horizontally.
.4 260 | Make this HTML page responsive: <div class="{name}"><p>{word}</p></div>
.55 400 | Write a Makefile for a {lang} project with build, test and clean targets.
.6 400 | Write a GitHub Actions workflow that tests a {lang} project on three platforms.
.8 700 | Write a tokenizer and a recursive descent parser for {grammar} in {lang}.
.85 900 | Implement a small interpreter for {grammar} in {lang}.
.8 600 | Implement an LRU cache with TTL in {lang} that is safe for concurrent use.
.75 500 | LeetCode hard: given an array of n integers, {leet}. Give an O(n log n) solution in {lang}.
.6 350 | Given a list of integers, {leet}. Write the code in {lang}.
.55 300 | Solve this in {lang}: {leet}
.5 250 | Parse this JSON in {lang} and print every name: {{"users": [{{"name": "{word}"}}]}}
.5 300 | Read a CSV file with pandas and {pandas_do}.
.4 150 | pandas: how to {pandas_do}
.45 180 | numpy: {numpy_do} without a loop
.6 350 | Plot {thing} over time with matplotlib, with two y axes.
.5 350 | Write a web scraper in {lang} that collects the titles of {thing}.
.55 300 | My {framework} app leaks memory. How do I find out where?
.6 350 | How do I profile a {lang} program?
.5 250 | undefined reference to `{name}` when linking, why?
.45 200 | npm ERR! peer dependency conflict with {framework}, how do I resolve it
.55 300 | Why is my useEffect called twice in {framework}?
.5 250 | The borrow checker complains: cannot borrow `{name}` as mutable. What should I change?\n{snippet}
.4 150 | How do I mock a database call in a {lang} test?
.5 300 | Write a GraphQL schema for {thing}.
.5 300 | Write a protobuf definition for {thing} and the {lang} server for it.
.6 450 | Write an async {lang} client which retries with exponential backoff and a deadline.
.7 500 | Write a lock-free queue in {lang}
.3 100 | What is wrong with this import: from {name} import {word}
.3 80 | add a docstring: {snippet}
.25 40 | rename the variables to something meaningful: {snippet}
.3 150 | Generate a {lang} dataclass for {thing} with five fields.
.3 120 | How can I format a date as YYYY-MM-DD in {lang}?
.35 150 | sort a list of dictionaries by '{column}' in {lang}
.35 120 | merge two dictionaries in {lang}, the second one wins
.4 180 | read environment variables safely in {lang}
.5 250 | Write a trigger that updates {column} whenever {table} changes.
.45 220 | Write an Excel formula that {easy_fn}.
.45 220 | VBA macro to {easy_do}
.5 260 | LaTeX code for a table of {thing} with {n} columns
.35 150 | Schreibe eine {lang}-Funktion, die eine Liste sortiert und Duplikate entfernt.
.4 180 | Warum wirft mein {lang}-Code den Fehler {error}?
.35 150 | Écris une fonction {lang} qui renvoie la somme d'une liste.
.4 180 | ¿Por qué este código de {lang} no funciona?\n{snippet}
.35 150 | Escribe una consulta SQL que devuelva todos los clientes de {city}.
.6 350 | Write Terraform code for a {cloud} with {n} nodes.
.55 300 | Write an Ansible playbook that installs {framework} on {n} servers.
.55 300 | Create a Helm chart for a {framework} service with a config map and an ingress.
.5 250 | My pod is stuck in CrashLoopBackOff after I changed the {framework} image. How do I debug it?
.5 250 | nginx returns 502 for my {framework} backend, what should I check?
.45 200 | How do I set up a reverse proxy for {framework} with nginx?
.45 200 | Which {lang} library should I use to parse XML?
.4 200 | Give me an example of {concept} in {lang}.
.4 200 | {concept} vs {concept2} in {lang}
.45 220 | best practice for {concept} in a {framework} code base?
.5 250 | How do I test {concept} in {framework}?
.5 300 | Write a migration that adds the column {column} to {table} and fills it.
.5 220 | Write a stored procedure which archives rows of {table} older than {n} days.
.45 180 | create table statement for {thing} with a foreign key to {table}
.55 260 | Normalise this schema: {table}({column}, customer_name, customer_city, product_name)
.5 200 | MongoDB query that groups {table} by {column}
.5 260 | Write an Elasticsearch query for {thing} in {city} sorted by date.
.4 150 | How do I pass an array to a function in {lang}?
.4 150 | how to catch an exception in {lang} and log it
.35 120 | check if a key exists in a dictionary {lang}
.35 120 | {lang} read file
.35 120 | {lang} http request example
.45 200 | convert a callback to async/await in {lang}
.5 250 | My unit test passes locally but fails in CI with {error}
.5 250 | Can you find the mistake? {snippet}
.45 220 | Simplify this code.\n\n{snippet}
.45 220 | Explain line by line:\n{snippet}
.4 180 | Does this code have a security problem?\n{snippet}
.5 280 | Rewrite the following without a loop:\n{snippet}
.45 220 | Make this function recursive: {snippet}
.4 160 | What does the error "{error}" mean?
.6 350 | Design a database schema for an online shop that sells {thing}.
.7 500 | Design the API of a service that stores {thing}, with versioning and pagination.
.75 600 | How would you design a system like a URL shortener that serves {n} million users?
.65 400 | Write a CUDA kernel that adds two matrices.
.65 400 | Vectorise this loop with AVX intrinsics:\n{snippet}
.6 350 | Train a small classifier on {thing} with scikit-learn and print a confusion matrix.
.65 400 | Write a PyTorch module for {algorithm} style attention with {k} heads.
.4 150 | How do I install {framework} in a virtual environment?
.4 160 | set up eslint and prettier in a {framework} project
.5 260 | Write an HTML form with validation that collects a name and an email address.
.45 220 | Write a Chrome extension manifest that changes the background colour.
.5 260 | Make a {lang} command line tool that can {easy_do}.
.55 320 | Write a Discord bot in {lang} that answers with a random quote.
.6 380 | Make a snake game in {lang}.
.6 380 | write tic tac toe in {lang} with a computer opponent
.3 60 | chmod 755 means what?
.35 80 | what does the -r flag of grep do
.35 100 | cron expression for every weekday at {k} in the morning
.3 60 | exit vim
.25 20 | In Python, is {n} == {n}.0 true?
.25 20 | What type is {expr} in Python?
.25 30 | Fill in the blank: def {name}({arg}): return ____  # {desc}
.3 40 | Write one line of Python for this: {desc}
.25 15 | Make '{word}' upper case.
.25 15 | What is the first letter of '{word}' and the last of '{word}'?
.3 15 | Sort the letters of {word}.
.25 15 | How many letters '{letter}' are in {word}?
.4 180 | Erkläre mir {concept} in {lang} mit einem Beispiel.
.4 180 | Comment corriger l'erreur {error} en {lang} ?
.4 180 | Come si legge un file in {lang}?
.4 180 | Como faço para ordenar uma lista em {lang}?
.4 180 | my {framework} page shows a blank screen after the last deploy, no errors in the console
.4 200 | the login form in my app submits twice, here's the handler: {snippet}
.45 200 | I have a function that should return {desc} but it always returns None
.4 180 | why is my loop infinite?
.4 200 | the inner join drops rows that I need, which join should I use
.4 200 | explain group by and having with an example
.45 200 | what is an index in a database and when does it hurt
.5 250 | implement a stack with two queues
.5 250 | implement bubble sort, no libraries
.55 280 | implement depth first search on a grid
.5 260 | write pseudocode for checking balanced brackets
.45 220 | reverse a linked list in place
.5 260 | code to detect a cycle in a linked list please
.45 200 | convert this awk one-liner to {lang}: awk '{{print $2}}' data.txt
.45 220 | sed command to delete every line containing {word}
.5 240 | how would you mock the network in these tests
.45 220 | parametrize this pytest test for three inputs
.45 240 | write a test that checks that {name} raises an exception for negative numbers
.4 150 | difference between == and ===
.4 150 | pass by value or pass by reference?
.45 200 | what happens when I await inside a for loop
.45 220 | is it safe to share this object between threads?
.5 260 | my websocket disconnects after {n} seconds
.5 260 | the container exits immediately with code {k}
.5 240 | my CSS grid overflows on mobile
.45 200 | the button's onClick handler isn't firing
.45 220 | cannot find symbol {name} although I imported it
.45 220 | Uncaught (in promise) {error}
.45 220 | {error} in the reducer when I dispatch an action
.5 220 | SyntaxError near "FROM": {sql_do} fails
.35 120 | Add a --verbose flag to my argparse parser.
.35 120 | Log to a file instead of stdout
.4 160 | Use an environment variable for the API key here: {snippet}
.45 240 | turn this class into a dataclass
.45 240 | split this function in two, it does too much:\n{snippet}
.5 250 | package.json scripts for building, linting and releasing
.5 260 | pyproject.toml for a small library with a console script
.5 280 | write a GitHub issue template for bug reports in YAML
.6 320 | Write a merge request description for these changes:\n{snippet}
.7 450 | port this to {lang2} and keep the API the same: {snippet}
.65 400 | Write a parser for INI files.
.65 380 | build a simple key-value store that persists to disk
.7 450 | implement backpropagation for a two-layer network without a framework
.6 350 | Simulate {k} elevators with an event queue, code only.
.6 350 | a generator that yields primes lazily
.2 15 | What is the value of {expr}?
.25 20 | After a = [{k}, {m}]; a.append({n}), what is a?
.25 20 | d = {{'x': {n}}}; d.get('y', {k}) gives?
.3 60 | is '{word}' in {expr} True or False?
"""

REASONING: Final = r"""
.05 8 | What is {n} + {m}?
.1 8 | {n} - {m}
.15 10 | {n} times {m}
.1 8 | what's {n} plus {m}
.25 15 | Calculate {n} * {m} + {k}.
.3 20 | Work out ({n} + {m}) * {k}.
.35 25 | {n} * {k} - {m} * {k2} = ?
.45 40 | What is {n}{n2} divided by {k}, and what is the remainder?
.5 50 | Evaluate ({n} + {m}) * ({k} - {k2}) + {n2}.
.2 15 | What is {k}% of {n}0?
.3 30 | A shirt costs {n} dollars and is reduced by {k} percent. What is the new price?
.3 60 | {person} has {n} {objects} and gives {k} to {person2}. How many are left?
.4 90 | {person} buys {k} boxes with {m} {objects} each and loses {k2}. How many {objects} remain?
.45 100 | {person} reads {k} pages a day. After {m} days, how many pages of a {n}{n2}-page book are left?
.5 120 | A train leaves {city} at {k}:00 at {n} km/h, and another leaves {city2} {k2} hours later at {m} km/h. When do they meet?
.5 130 | {person} can paint a house in {k} hours and {person2} in {m} hours. How long do they need together?
.45 100 | A recipe for {k} people needs {n} grams of flour. How much is needed for {m} people?
.45 100 | If {k} machines make {n} parts in {k2} hours, how many parts do {m} machines make in one hour?
.55 130 | {person} is {k} times as old as {person2}. In {m} years {person} will be twice as old. How old is {person2} now?
.5 120 | {person} invests {n}000 euros at {k} percent interest. How much is it after {k2} years?
.5 110 | The sum of {k} consecutive numbers is {n}. What is the largest of them?
.3 30 | Convert {n} kilometres to miles.
.25 15 | How many minutes are there in {k} hours and {m} minutes?
.3 15 | How many metres is {n} cm?
.35 20 | What day of the week is it {n} days after a Tuesday?
.4 25 | What is the date {n} days after 3 March 2024?
.35 20 | How many days lie between {k} May and {m} June?
.4 30 | It is {k}:{n} now. What time was it {m} minutes ago?
.6 200 | Solve for x: {k}x + {m} = {n}.
.65 220 | Solve the equation x^2 - {n}x + {m} = 0.
.65 220 | Find all real solutions of {k}x^2 + {n}x - {m} = 0
.6 200 | Solve the system: {k}x + {k2}y = {n}, x - y = {m}.
.7 300 | Integrate x^{k} * e^({k2}x) dx.
.65 250 | Differentiate f(x) = sin({k}x) * x^{k2} and simplify.
.7 300 | Compute the limit of (1 + {k}/n)^n as n goes to infinity, with a justification.
.75 300 | Find the eigenvalues of the matrix [[{k}, {m}], [{k2}, {n}]].
.8 500 | Prove that the square root of {prime} is irrational.
.85 600 | Prove that {theorem}.
.9 700 | Show that {theorem}, and discuss whether the converse holds.
.85 500 | Prove by induction that {induction}.
.9 600 | Let G be a finite group of order {prime}. Prove that G is cyclic.
.6 250 | What is the probability of {event}?
.6 250 | A bag holds {k} red and {m} blue balls. Two are drawn without putting back. What is the probability that {draw}?
.65 250 | In how many ways can {k} people sit {seating}?
.65 250 | How many {k}-digit numbers have {digits}?
.7 350 | {person}, {person2} and {person3} each own a different pet: a cat, a dog, a bird. {person} is allergic to fur. {person2} does not own the dog. Who owns what?
.7 350 | Five houses in a row have different colours. The {colour} one is left of the {colour2} one. {person} lives in the middle. Where can {person2} live?
.65 250 | On an island, knights always tell the truth and knaves always lie. {person} says "{person2} is a knave". {person2} says "we are of the same kind". Who is what?
.55 150 | All {plural} are {plural2}. Some {plural2} are {plural3}. Does it follow that some {plural} are {plural3}?
.5 120 | If it rains, the {place} is closed. The {place} is open. What can we conclude?
.5 100 | {person} is taller than {person2}, {person2} is taller than {person3}. Who is the shortest?
.55 150 | Three boxes are labelled wrongly: {plural}, {plural2} and mixed. You may take one item from one box. How do you relabel all of them?
.6 200 | A farmer must cross a river with a wolf, a goat and a cabbage, and the boat takes one. How does he do it?
.65 250 | You have {k} coins, one is lighter. With a balance, what is the least number of weighings needed?
.6 200 | I have two ropes that each burn for one hour, unevenly. How do I measure 45 minutes?
.55 60 | What comes next in the sequence: {k}, {m}, {n}, ...? Explain.
.5 50 | Find the missing number: 2, 6, 12, 20, ?, 42
.45 60 | Riddle: {riddle} What am I?
.7 500 | Plan a project of {k} tasks where each takes {m} days and task C needs A and B. What is the critical path?
.7 500 | I have {n} euros and {k} days in {city}. Plan the cheapest route that visits all {m} sights.
.75 500 | Schedule {k} meetings of {m} minutes each between 9:00 and 17:00 so that {person} and {person2} never overlap.
.75 450 | {k} workers and {k} jobs with costs between {m} and {n}: how do I assign them at the least total cost?
.7 400 | Should a company with {n} employees rent or buy its office if the rent is {m}000 a month? Reason step by step.
.65 350 | Think step by step: {person} starts at the {place}, walks {k} km north, {m} km east and {k} km south. How far is {person} from the start?
.6 250 | A tank is filled by one pipe in {k} hours and emptied by another in {m} hours. When is it full?
.6 250 | Two numbers add up to {n} and their product is {m}{n2}. What are they?
.55 180 | A rectangle has a perimeter of {n} and is {k} longer than it is wide. What is its area?
.55 180 | What is the area of a triangle with sides {k}, {m} and {m}?
.6 220 | A circle is inscribed in a square of side {k}. What share of the square does it cover?
.7 350 | How much work is needed to lift {n} kg by {m} metres, and how long does a {k} kW motor take?
.7 350 | A ball is thrown upwards at {n} m/s. How high does it get and when does it land?
.7 350 | What is the pH of a {k} millimolar solution of hydrochloric acid? Show the steps.
.7 350 | Balance the equation: C3H8 + O2 -> CO2 + H2O and say how much CO2 comes from {n} g of propane.
.75 400 | A test for a disease is {n}% accurate and one person in {m}00 has it. Given a positive test, how likely is the disease?
.8 500 | In the prisoner's dilemma repeated {k} times, what is the subgame perfect equilibrium and why?
.75 400 | Explain why the harmonic series diverges and estimate its first {n} terms.
.7 350 | Use modular arithmetic to find the last digit of {k}^{n}.
.7 350 | What is the greatest common divisor of {n}{m} and {m}{n}? Use Euclid's algorithm.
.5 80 | Is {n}{k}7 a prime number?
.4 40 | List the prime factors of {n}0.
.35 20 | Which is larger, {k}/{m} or {k2}/{n}?
.4 40 | Put these in ascending order: {n}/{m}, 0.{n2}, {k}%.
.3 20 | Round {n}.{m}{k} to one decimal place.
.35 40 | The average of {k}, {m} and {n} is what?
.45 80 | {person} scored {n}, {m} and {n2}. What must the next score be for an average of {n3}?
.4 60 | A bus ticket costs {k} euros, a monthly pass {n}. From how many rides on is the pass cheaper?
.4 70 | {person} runs {k} km in {m} minutes. What is the speed in km/h?
.4 60 | there are {n} students and {k} per table, how many tables do we need
.45 80 | {person} earns {k} per hour plus {m} bonus. How much for {n} hours?
.45 80 | if 3 cats catch 3 mice in 3 minutes how many cats catch {n} mice in {n} minutes
.5 90 | a bat and a ball cost {n} cents together, the bat costs {m} cents more. price of the ball?
.55 150 | Is this argument valid? Premise 1: no {plural} are {plural2}. Premise 2: {person} is one of the {plural}. Conclusion: {person} is none of the {plural2}.
.6 200 | Find the flaw in this reasoning: every {animal} I saw was {colour}, so all of them are {colour}.
.65 300 | Compare two job offers: {n}000 a year near home, or {m}000 more with {k} hours of commuting a week. Which pays more per hour?
.8 600 | Estimate how many piano tuners work in {city}. State your assumptions.
.75 500 | What would happen to the tides if the Moon were twice as far away? Reason it through quantitatively.
.45 100 | Wie viel ist {n} mal {m} minus {k}?
.5 120 | {person} hat {n} Äpfel und gibt {k} an {person2}. Wie viele bleiben übrig?
.7 350 | Beweise, dass die Wurzel aus {prime} irrational ist.
.5 120 | Combien font {n} fois {m} ? Explique ton calcul.
.5 120 | Si un tren viaja a {n} km/h durante {k} horas, ¿qué distancia recorre?
.5 120 | No {plural} are {plural2}. All {plural3} are {plural}. Are any {plural3} {plural2}?
.5 120 | {person} says that if it snows the {place} closes. It did not snow. Must the {place} be open?
.6 250 | Four friends finish a race. {person} is not last, {person2} is right behind {person3}, and {person3} is not first. In which order did they finish?
.6 250 | {person}, {person2} and {person3} sit in a row. {person} is not next to {person3}. {person2} is on the left. Is that possible?
.65 250 | Exactly one of these statements is true: 1) {person} took the {colour} one. 2) {person2} lied. 3) {person3} told the truth. Who took it?
.6 200 | You meet three doors. Behind one is a prize. The host opens another one. Should you switch, and why?
.65 250 | Two people play a game: they take one to {k} stones from a heap of {n}. Who wins with perfect play?
.7 350 | There are {n} prisoners and a light bulb. What strategy guarantees that they get free?
.6 200 | A clock shows {k}:{m}. What is the angle between its hands?
.6 200 | How many squares are there on a chessboard?
.55 150 | If I fold a paper {k} times, how many layers are there? And how thick is it if one is 0.1 mm?
.55 150 | A snail climbs {k2} metres by day and slips {k} by night. When is it out of a well of {n} metres?
.5 90 | A car uses {k} litres per 100 km. How much fuel does it need for {n}{n2} km?
.5 90 | {person} splits {n} {objects} in the ratio {k} to {k2}. How many does each part have?
.45 80 | Each of the {k} shelves holds {n} {objects}. {m} are borrowed. How many are on the shelves?
.4 60 | {person} had {n} {objects}, found {m} more and then shared all of them with {k} friends. What does each get?
.4 60 | {n} {objects} cost {m} euros. What do {k} cost?
.35 40 | {person} wakes up at {k}:{n} and needs {m} minutes to get ready. When can {person} leave?
.35 40 | A film starts at {k}:{m} and lasts {n} minutes. When does it end?
.3 20 | Which year was it {n} years before 2010?
.3 20 | How many hours are in {k} days?
.25 15 | {n}+{m}*{k}
.3 15 | ({n}-{m})*{k}=
.2 10 | add {n}, {m} and {k}
.2 10 | double {n} and subtract {k}
.25 15 | half of {n}0 is?
.35 20 | {k} squared plus {m} squared
.4 30 | What is the square root of {n}00, to two places?
.4 30 | {k} to the power of {k2}
.45 40 | log base 2 of {n}4
.45 60 | Write {n} in binary.
.45 60 | Convert the binary number 1{n}01 to decimal, if it is one.
.5 60 | Simplify the fraction {n}0/{m}5.
.5 80 | Expand (x + {k})(x - {m}).
.55 100 | Factor x^2 + {n}x + {m}.
.6 200 | Find the inverse of f(x) = ({k}x + {m}) / (x - {k2}).
.7 300 | Determine whether the series sum of 1/n^{k} converges.
.75 400 | Solve the differential equation y' = {k}y + {m}.
.75 400 | Use Lagrange multipliers to maximise xy subject to x + {k}y = {n}.
.8 500 | Prove or disprove: {theorem}.
.85 600 | Give a rigorous proof that {theorem}.
.85 500 | Derive the formula for the sum of the first n cubes.
.75 400 | What is the expected number of throws of a die until every face has come up?
.7 350 | {person} draws cards until the first ace. What is the expected number of draws?
.7 300 | Compute the variance of a binomial variable with n = {n} and p = 0.{k}.
.65 300 | A sample of {n} has mean {m} and standard deviation {k}. Give the 95% confidence interval.
.75 400 | A satellite circles the Earth at a height of {n}0 km. How fast does it move?
.7 350 | Two resistors of {n} and {m} ohms are in parallel at {k} volts. What current flows?
.7 300 | How much energy is needed to boil {k} litres of water from {m} degrees?
.7 400 | Plan my week: {k} tasks of {m} minutes, two deadlines on Wednesday and at most {k2} hours a day.
.75 450 | A delivery van must visit {k} customers in {city} between {m} and {n} o'clock. Find a good order and justify it.
.7 400 | We have a budget of {n}000 euros and {k} projects with different returns. Which should we choose? Show the reasoning.
.65 350 | Weigh the evidence: {k} witnesses saw a {colour} car, one saw a {colour2} one. What is most likely, and how sure can we be?
.7 400 | What are the second-order effects if a city like {city} makes public transport free? Argue step by step.
.7 350 | Find the contradiction in these statements: {person} was in {city} on Monday. On Monday {person} was only in {city2}. All trains were cancelled.
.55 150 | Wie alt ist {person}, wenn {person2} {n} ist und {k} Jahre jünger?
.5 100 | Was ist {n} geteilt durch {k}?
.55 150 | {person} achète {k} boîtes de {m} œufs et en casse {k2}. Combien en reste-t-il ?
.55 150 | Calcula el {k}% de {n}0 y explica los pasos.
.55 150 | Quanto fa {n} per {m} meno {k}?
.8 500 | Démontre que la racine carrée de {prime} est irrationnelle.
.5 120 | If all {nonsense} are {nonsense2} and no {nonsense2} are {plural}, can a {nonsense} be one of the {plural}?
.5 120 | All {nonsense} are {nonsense2}. Everything that is one of the {nonsense2} is {adjective}. Is every one of the {nonsense} {adjective}?
.5 120 | some {nonsense} are {plural}, all {plural} are {nonsense2}, so are some {nonsense} {nonsense2}?
.5 120 | If A implies B and B implies C, and C is false, what about A?
.55 150 | A is taller than B, C is shorter than B, D is taller than A. Order them.
.55 150 | Either {person} or {person2} is lying. {person} says both are. Who lies?
.6 180 | The password has {k} digits, starts with {k2} and its digits add up to {m}. How many such passwords are there?
.6 200 | A bacteria culture doubles every {k} minutes. It fills the jar after {n} minutes. When is it half full?
.6 200 | A lake loses {k}% of its water a year. How long until only a third is left?
.6 200 | The value of a car falls by {k} percent each year. What is it worth after {k2} years if it cost {n}000?
.5 110 | {person} packs {k} crates with {n} {objects} each, {m} of them are bad. How many good ones are there?
.5 110 | A school orders {n} chairs at {k} euros and {m} desks at {n2} euros. What is the bill?
.5 110 | {n} people share a bill of {n2}{k} euros, {k2} of them pay nothing. What does each of the others pay?
.5 120 | {person} walks {k} km in the time in which {person2} cycles {n}. How far has {person2} gone when {person} has walked {k2} km?
.55 140 | three taps fill a bath in {k}, {k2} and {m} minutes. how long with all of them open?
.55 140 | the sides of a box are {k}, {k2} and {m} cm. what is the longest stick that fits inside?
.6 200 | How many different hands of {k} cards contain exactly two aces?
.6 200 | How many ways are there to choose {k} from {n}?
.6 200 | In how many ways can the letters of {word} be arranged?
.6 220 | What is the chance that at least one of {k} dice shows a six?
.65 250 | Find the maximum of f(x) = -x^2 + {n}x - {m}.
.65 250 | At which points does the curve y = x^3 - {k}x have a horizontal tangent?
.65 250 | What is the distance of the point ({k}, {m}) from the line y = {k2}x + {n}?
.65 250 | Is the function x^{k} - {m}x injective on the reals? Justify.
.8 500 | Show that between any two {numbers} lies another one.
.8 500 | Prove that the product of {k} consecutive integers is divisible by {k}.
.8 500 | Prove that a graph with n vertices and more than n - 1 edges has a cycle.
.85 600 | Let f be continuous with f(0) = f({k}). Show that f takes some value twice.
.8 500 | Prove that a set with n elements has 2^n subsets.
.85 550 | Is every subgroup of an abelian group normal? Prove it or give a counterexample.
.7 350 | Deduce from these clues who lives where: {person} lives above {person2}. {person3} does not live at the top. The {colour} door is at the bottom.
.7 350 | Crack the code: {n}{k} has one right digit in the right place, {m}{k2} has none right, {n2}{k} has one in the wrong place.
.7 350 | A sudoku row holds {k}, 1, _, 4, _, 9, _, _, 2. Which digits can the gaps hold?
.7 400 | White to move: king on e1, rook on a1, black king on e8. How does White win?
.6 200 | I am {n}, my brother was half my age when I was {k}. How old is he?
.6 200 | What is wrong with this proof that 1 = 2: a = b, a^2 = ab, a^2 - b^2 = ab - b^2, a + b = b?
.7 350 | Compare the two mortgage offers: {k}.{k2}% over {n} years against {k2}.{k}% over {m} years. Which is cheaper in total?
.7 400 | Given a budget of {n} hours and the tasks A ({k} h), B ({k2} h), C ({m} h), in which order should they be done to finish most by noon?
.7 400 | If demand falls by {k}% when the price rises by {k2}%, should the shop raise its price? Show the calculation.
.3 15 | {n} minus {m} equals
.2 10 | whats {n} + {n2} + {m}
.3 20 | {n}{k} / {k2}
.35 25 | {n} x {m} - {n2}
.3 15 | sum of {n}, {m}, {k} and {k2}
"""

GENERAL: Final = r"""
.05 10 | What is the capital of {country}?
.05 10 | capital of {country}?
.1 10 | Which city is the capital of {country}?
.1 15 | Who wrote {book}?
.15 20 | Who painted {painting}?
.15 15 | In which year did {happening} happen?
.15 30 | When was {figure} born?
.1 15 | What is the largest {superlative} in the world?
.1 10 | what colour is a {animal}
.1 10 | Is a {animal} a mammal?
.1 10 | Is a {food} a fruit or a vegetable?
.1 10 | Which is bigger, a {animal} or a {animal2}?
.1 15 | What sound does a {animal} make?
.1 10 | Name a {category}.
.1 20 | name three {category_plural}
.15 60 | List five {category_plural}.
.15 15 | What is the opposite of {adjective}?
.15 20 | Give me a synonym for {adjective}.
.1 10 | What language do people speak in {country}?
.1 10 | On which continent is {country}?
.15 10 | What is the chemical symbol of {element}?
.3 120 | Who was {figure}?
.35 200 | Tell me about {topic}.
.35 200 | What is {topic}?
.35 250 | Explain {topic} to a ten-year-old.
.4 350 | Can you explain how {topic} works?
.45 400 | What are the pros and cons of {topic}?
.45 450 | Compare {topic} with {topic2}.
.5 500 | What were the main causes of {happening}?
.5 600 | Describe the history of {country} in the nineteenth century.
.55 800 | Write an essay about {topic}.
.6 1000 | Write a detailed article on {topic} for a general audience.
.55 900 | Write a short story about a {animal} who wants to see {city}.
.55 900 | Write a story in which {person} meets {figure}.
.45 150 | Write a poem about {nature}.
.45 60 | Write a haiku about {nature}
.5 250 | Write a song about {nature} in the style of a sea shanty.
.3 180 | Write an email to my boss saying that I am ill and cannot come to work.
.35 220 | Draft a polite email to {person} about {matter}.
.35 220 | write a letter to my landlord about {matter}
.4 350 | Write a cover letter for a job as a {job}.
.4 200 | Write a product description for a {product}.
.35 120 | Suggest ten names for a {business}.
.35 80 | Come up with a slogan for a {business}.
.35 100 | Write a tweet announcing a new {product}.
.4 250 | Write a blog introduction about {topic}.
.4 250 | Write a speech of one minute for {person}'s birthday.
.3 120 | Summarise the following text in two sentences:\n\n{passage} {passage}
.3 120 | TL;DR of this please: {passage} {passage}
.3 100 | Summarize: {passage}
.35 150 | What is the main idea of this passage?\n{passage}
.3 40 | Give this text a title: {passage}
.35 100 | Rewrite this so that it sounds more formal: {sentence}
.3 80 | Rephrase: {sentence}
.25 60 | Correct the grammar: {sentence}
.25 60 | Fix the spelling mistakes in "{sentence}"
.3 80 | Make this shorter: {passage}
.25 50 | Translate into {tongue}: {sentence}
.25 50 | How do you say "{sentence}" in {tongue}?
.2 15 | What is the {tongue} word for {food}?
.3 60 | translate this to {tongue} please: {sentence}
.3 15 | Is the sentiment of this review positive or negative? "{sentence}"
.3 40 | Which people and places are mentioned here? {passage}
.05 25 | Hi!
.05 25 | hello there
.05 30 | hey, how are you today?
.05 25 | Good morning
.05 15 | thanks, that was helpful
.05 15 | Thank you so much!
.1 40 | Who are you?
.1 60 | What can you do?
.1 50 | tell me a joke
.15 60 | Tell me a joke about a {animal}.
.15 60 | Tell me a fun fact about {country}.
.2 100 | I feel {feeling} today.
.3 200 | I feel {feeling} because of {matter}. What should I do?
.35 250 | How can I stop being {feeling} at work?
.35 300 | Give me some tips for {activity}.
.35 300 | How do I get started with {activity}?
.35 300 | What should I know before {activity}?
.4 350 | What is a good recipe with {food} and {food2}?
.35 300 | how do I cook {food}
.35 150 | What can I use instead of {food} when I bake?
.4 500 | Suggest a three-day itinerary for {city}.
.35 250 | What should I see in {city}?
.3 150 | When is the best time to visit {country}?
.35 200 | Recommend some books about {topic}.
.35 200 | What films are similar to {book}?
.35 150 | gift ideas for a {job}
.4 250 | What does a {job} do all day?
.4 300 | How do I become a {job}?
.45 350 | How should I prepare for an interview as a {job}?
.4 250 | Is {food} good for your health?
.45 300 | What are the symptoms of a cold and what helps?
.4 250 | Why do {animal}s sleep so much?
.4 200 | Why is the sky blue?
.4 200 | How do planes stay in the air?
.45 250 | How do vaccines work?
.4 200 | What is the meaning of the saying "{saying}"?
.3 150 | Where does the saying "{saying}" come from?
.3 80 | Define "{adjective}" and use it in a sentence.
.4 200 | What is the difference between {topic} and {topic2}?
.5 350 | Discuss whether {topic} is good for society.
.5 350 | Pretend to be {figure} and talk about {topic}.
.45 300 | You are a friendly museum guide. Tell visitors about {painting}.
.4 300 | Write a dialogue between a {job} and a {job2}.
.4 150 | Write a caption for a photo of {nature}.
.35 150 | Make a packing list for a week in {city}.
.35 120 | Write a shopping list for a dinner with {food}, {food2} and dessert.
.35 300 | Create a quiz with five questions about {country}.
.5 600 | Write a lesson plan about {topic} for teenagers.
.45 300 | What would life be like without {topic}?
.5 300 | Give me arguments against {topic}
.45 250 | summarise the plot of {book}
.45 350 | Who are the main characters of {book} and what do they want?
.3 120 | What happened in {happening}?
.35 180 | Why is {figure} famous?
.35 180 | what's so special about {city}
.2 60 | What time zone is {city} in?
.2 60 | What currency is used in {country}?
.2 40 | How tall is the highest mountain of {country}?
.2 30 | how old is the universe
.2 30 | how many people live in {country}
.2 30 | What is {city} known for, in one sentence?
.05 10 | Wie heißt die Hauptstadt von {country}?
.35 220 | Schreibe eine höfliche E-Mail an {person} wegen einer Rechnung.
.35 200 | Erkläre mir bitte, was {topic} ist.
.05 10 | Quelle est la capitale de {country} ?
.45 200 | Écris un poème sur la mer et le vent.
.35 200 | Explique-moi ce qu'est {topic}, s'il te plaît.
.05 10 | ¿Cuál es la capital de {country}?
.35 220 | Escribe un correo a {person} para cancelar una cita.
.35 200 | ¿Qué es {topic}? Explícalo con palabras sencillas.
.35 200 | Che cosa è {topic}? Spiegalo in modo semplice.
.35 200 | O que é {topic}? Explique de forma simples.
.05 15 | ok thanks
.05 15 | great, that's what I needed
.05 15 | You're awesome!
.05 20 | bye, see you tomorrow
.05 25 | what's up
.1 40 | Are you a human?
.1 40 | How are you feeling about the weekend?
.15 50 | I just got a new {animal}!
.2 80 | guess what, I am going to {city} next week
.25 120 | I had an argument with {person} about {matter}.
.3 100 | Shorten the text below to one paragraph.\n\n{passage} {passage} {passage}
.3 100 | What are the key points here?\n\n{passage} {passage}
.3 100 | Read this and tell me what it is about: {passage}
.3 100 | Turn this into bullet points: {passage} {passage}
.3 80 | Find a headline for this article: {passage} {passage}
.3 80 | Write a conclusion for this text: {passage}
.3 120 | Continue this story: {sentence}
.3 120 | Proofread the following paragraph: {passage}
.3 100 | make it sound friendlier: {sentence}
.3 120 | Reply to this email: {sentence} {sentence}
.3 120 | Answer this customer politely: "{sentence}"
.25 30 | Is this text formal or informal? {sentence}
.25 20 | Which language is this: {sentence}
.3 60 | Extract all names and dates from this text: {passage}
.3 60 | Based on the text, where does it take place? {passage}
.25 20 | Classify the topic as sports, politics or culture: {sentence}
.3 100 | Translate the following paragraph into {tongue}: {passage}
.25 50 | {sentence} - in {tongue} please
.25 30 | what does "{adjective}" mean
.2 20 | plural of {food}
.2 20 | How is "{adjective}" spelled?
.2 20 | Which word rhymes with {word}?
.15 10 | Who discovered {element}?
.15 10 | Who invented the {invention}?
.15 15 | When was the {invention} invented?
.15 10 | What do {animal}s eat?
.15 10 | How many legs does a {animal} have?
.1 10 | Is {city} in {country}?
.1 10 | Which ocean is closest to {country}?
.1 10 | Which is larger by population, {country} or {city}?
.1 10 | Is {element} a metal?
.15 10 | What belongs together: {food}, {food2} or {animal}?
.15 10 | Which one does not fit: {animal}, {animal2}, {food}?
.15 15 | What is a baby {animal} called?
.15 15 | What is the national dish of {country}?
.2 30 | Who is the author of {book} and when was it published?
.25 60 | Give me a quote by {figure}.
.3 150 | Tell me three interesting things about {figure}.
.3 200 | Give me an overview of {topic}.
.35 250 | How has {topic} changed over the last fifty years?
.35 250 | Why do people like {topic}?
.35 250 | Why is {topic} important?
.4 300 | What do critics say about {topic}?
.4 300 | Who benefits from {topic} and who does not?
.45 350 | What role did {figure} play in history?
.45 350 | How did {happening} change {country}?
.45 350 | Describe {city} as it was a hundred years ago.
.4 250 | Describe the {place} of {city} to somebody who has never been there.
.45 400 | Make a weekly meal plan with {food} and {food2}.
.35 250 | Make a plan for learning {tongue} in half a year.
.35 200 | Make a list of things to do in {city} when it rains.
.3 100 | Make up a name for my {animal}.
.35 150 | How can I get rid of stains from {food}?
.35 200 | How long does {food} keep in the fridge?
.35 200 | Can I eat {food} every day?
.35 200 | Which {product} should I buy?
.3 150 | Is it worth buying a new {product}?
.35 200 | What questions should I ask before I rent a flat in {city}?
.35 200 | How should I tell {person} about {matter}?
.4 250 | What are my rights in case of {matter}?
.4 250 | How much does a {job} earn in {country}?
.4 250 | What skills does a {job} need?
.45 300 | Write a toast for the wedding of {person} and {person2}.
.45 300 | Write a review of a {product} as an unhappy customer.
.5 400 | Write a monologue for {figure}.
.5 400 | Write a fairy tale with a {animal}, a {animal2} and a moral.
.5 500 | Write the first chapter of a crime novel set in {city}.
.45 250 | Write lyrics about {feeling} days in {city}.
.4 150 | Write a limerick about a {job} from {city}.
.4 200 | Write a LinkedIn post about {activity}.
.4 200 | Write an invitation to a party at the {place}.
.35 150 | Write a complaint about {matter} to the railway company.
.4 250 | Act as a {job} and give me advice about {matter}.
.4 250 | Imagine that you are a {animal}. Describe your day.
.4 250 | Interview {figure} about {topic}, five questions and answers.
.35 150 | In a few words, what is {topic}?
.35 200 | ELI5 {topic}
.35 200 | {topic}?
.15 10 | Welche Sprache spricht man in {country}?
.35 200 | Fasse diesen Text zusammen: {passage}
.3 60 | Traduis en anglais : le petit chat dort sur la chaise.
.35 200 | Raconte-moi une histoire sur un renard et une oie.
.35 200 | Dame tres consejos para dormir mejor.
.35 200 | Scrivi una breve poesia sul mare.
.35 200 | Vertel me iets over {city}.
.35 200 | Berätta om {city} för mig.
.05 20 | hey!! how's it going
.05 20 | yo
.05 20 | good evening :)
.05 20 | nice to meet you
.05 25 | haven't talked to you in ages
.05 20 | lol that was funny
.05 20 | sorry, I was away for a while
.05 20 | good night!
.1 40 | I'm so excited for the holidays!!
.1 60 | can't sleep, talk to me
.1 60 | I'm bored, entertain me
.1 60 | my {animal} is sleeping on my keyboard again
.15 80 | ugh, {feeling} again, and it's only Monday
.2 100 | do you believe in ghosts?
.2 100 | what's your favourite film
.25 120 | should I cut my hair short?
.3 150 | What could I give my father for his birthday?
.3 150 | present for a {job} who has everything
.3 150 | fun things to do with kids on a rainy day
.3 200 | Can you recommend a good restaurant menu with {food}?
.3 200 | menu ideas for a party of {n} people
.35 250 | How do the rules of {sport} work?
.35 250 | Explain {sport} to somebody who has never seen it.
.35 200 | Who are the best players in {sport}?
.3 150 | Who won the most medals in {sport}?
.15 15 | Who was the first person to {feat}?
.15 15 | Which woman was the first to {feat}?
.15 15 | Which country was the first to {feat}?
.15 10 | Who won the Nobel Prize in physics in 19{n}?
.15 10 | Which planet is closest to the Sun?
.15 10 | what is the boiling point of water
.15 10 | longest river in {country}
.15 10 | national anthem of {country}?
.15 10 | president of {country} in 19{n}
.3 120 | Write a welcome message for the new members of our {club}.
.3 120 | Write a thank-you card to my {job}.
.3 120 | Write a short text for the newsletter of our {club}.
.3 120 | Write a birthday greeting for my grandmother.
.35 180 | Write a speech for the retirement of a {job}.
.3 120 | invite the neighbours to a barbecue, keep it funny
.3 100 | out-of-office reply, back on Monday
.3 100 | apology to a friend for {matter}
.25 40 | Say "where is the {place}" in {tongue}.
.25 40 | Translate 'good luck with the exam' into {tongue}
.3 80 | What does this mean in English: {foreign}
.3 80 | {foreign} - translation please
.4 250 | Why do we dream?
.4 250 | Why does bread rise?
.4 250 | Why do leaves change colour?
.4 250 | What causes earthquakes?
.4 250 | How does a microwave oven heat food?
.4 250 | How is glass made?
.4 250 | What is the difference between a virus and a bacterium?
.4 300 | What happened in {country} after the Second World War?
.4 300 | What did people eat in the Middle Ages?
.4 300 | How did people live in {city} in Roman times?
.45 350 | Give a balanced view of {topic}.
.45 350 | My teenager spends all day online. What can I do?
.45 350 | how can I be more confident when I speak in meetings
.4 300 | I moved to {city} and don't know anybody. How do I make friends?
.4 300 | How do I tell my boss that I want more money?
.35 250 | beginner workout without equipment
.35 250 | how often should I water a cactus
.35 250 | which plants grow well in the shade
.35 200 | how to fold a fitted sheet
.35 200 | how to tie a tie
.35 200 | what to wear to a wedding in summer
.35 150 | Names for a boat?
.35 150 | What rhymes with {colour} and fits in a love song?
.5 500 | Write a scene for a play in which two {job}s argue over a {product}.
.5 500 | Tell me a bedtime story with a dragon who is afraid of {food}.
.45 250 | Write a restaurant review of a place that served cold {food}.
.4 200 | Describe the taste of {food} to someone who never had it.
.4 200 | Come up with a riddle about a {animal}.
.4 200 | Which myths are told about {nature}?
"""

EMBEDDING: Final = r"""
.02 1 | query: {search}
.02 1 | passage: {passage}
.02 1 | search_query: {search}
.02 1 | search_document: {passage} {passage}
.02 1 | embed: {sentence}
.02 1 | Embed this text: {passage}
.02 1 | Embed the following sentence for semantic search: {sentence}
.02 1 | Compute the embedding of "{sentence}"
.02 1 | Give me the vector for: {sentence}
.02 1 | Represent this sentence for retrieving supporting documents: {sentence}
.02 1 | Represent this sentence for searching relevant passages: {search}
.02 1 | Represent the document for clustering: {passage}
.02 1 | Turn this paragraph into a vector: {passage}
.02 1 | Index this document: {passage} {passage}
.02 1 | Create an embedding for the product "{product}"
.02 1 | Text to embed:\n{passage}
.02 1 | sentence embedding for: {sentence}
.02 1 | Encode for similarity search: {sentence}
.02 1 | Instruct: Given a web search query, retrieve relevant passages.\nQuery: {search}
.02 1 | title: {topic} text: {passage}
.02 1 | Generate embeddings for these documents:\n- {sentence}\n- {sentence}\n- {sentence}
.02 1 | vectorise: {search}
.02 1 | I need the embedding vector of the following text: {passage}
.02 1 | Produce a dense vector for semantic similarity: {sentence}
.02 1 | Get embeddings: {sentence} | {sentence}
.02 1 | clustering: {sentence}
.02 1 | classification: {sentence}
.02 1 | {passage}
.02 1 | {passage} {passage}
.02 1 | {passage} {passage} {passage}
.02 1 | {passage}\n\n{passage}
.02 1 | {city} is a city in {country} with about {n} thousand inhabitants. It is known for its {place} and its {food}.
.02 1 | {country} is a country whose economy rests on {food}, tourism and machine building.
.02 1 | {figure} is remembered for work on {topic}, which changed how later generations saw it.
.02 1 | The {animal} lives mostly in woodland and feeds on {food}. Adults reach a length of {n} centimetres.
.02 1 | {book} was published to mixed reviews but sold {n} thousand copies within a year.
.02 1 | The {product} comes in {colour} and {colour2}, weighs {n} grams and is delivered within {k} days.
.02 1 | {colour} {product}, {n} cm, dishwasher safe, two years of warranty
.02 1 | {product} - {colour} - size {n}
.02 1 | Abstract. We study {topic} in {city} between 19{n} and 20{k}. Results suggest that {sentence}
.02 1 | Section {k}.{m} Liability. The contractor shall not be liable for {matter} beyond the amounts stated in annex {k2}.
.02 1 | The patient, aged {n}, reported {matter} and was given {k} mg twice a day.
.02 1 | Minutes of the meeting of {k} May: {person} reported on {matter}; {person2} will follow up.
.02 1 | Customer complained about {matter}. Ticket closed by {person}.
.02 1 | FAQ > Returns > You can send back your {product} within {n} days.
.02 1 | {framework} is an open-source framework written in {lang}, first released in 20{k}.
.02 1 | {lang} is a programming language with a focus on {concept}. It is used at {city} University for teaching.
.02 1 | This module describes {concept} and {concept2}. Readers should be familiar with {lang}.
.02 1 | Release notes {k}.{m}: improved {concept}, fixed a rare {error}, removed support for {framework}.
.02 1 | [{n}:{m}:{n2}] INFO worker-{k} finished job {n}{m} in {k2} ms
.02 1 | A prime number is a whole number greater than one whose only divisors are one and itself.
.02 1 | The theorem, first shown in 18{n}, states that {theorem}.
.02 1 | In probability theory, {event} is a standard example in textbooks.
.02 1 | {topic} | {topic2} | {nature}
.02 1 | Breaking: {happening} remembered in {city} with {n} guests
.02 1 | Review: the {product} is {adjective}, but after {k} weeks it broke. {sentence}
.02 1 | loved it. {sentence} would buy the {product} again.
.02 1 | {person} works as a {job} in {city} and likes {activity}.
.02 1 | We visited {city} in spring. {sentence} The {food} was {adjective}.
.02 1 | Chapter {k}. {sentence} {sentence}
.02 1 | {search}
.02 1 | {topic} in {country}
.02 1 | {adjective} {product} under {n} euros
.02 1 | {job} jobs {city} part time
.02 1 | {framework} {concept} documentation
.02 1 | doc: {passage}
.02 1 | q: {search}
.02 1 | text: {sentence}
.02 1 | Embedding: {sentence}
.02 1 | embed this for me: "{sentence}"
.02 1 | please embed the text below\n\n{passage}
.02 1 | vector for the search index: {search}
.02 1 | Store this passage in the vector database: {passage}
.02 1 | Find documents similar to: {sentence}
.02 1 | semantic search: {search}
.02 1 | Represent the question for retrieval: {search}
.02 1 | feature vector of {product}, {colour}
.02 1 | The {place} of {city} opens at {k} and closes at {n}. Tickets are sold at the entrance.
.02 1 | {figure} was born into a poor family and became one of the best known people of the age.
.02 1 | {topic} refers to a broad set of ideas that developed over several centuries.
.02 1 | {food} is grown in {country} and {country}, mostly on small farms.
.02 1 | Most {animal}s are active at night. They raise {k} young a year.
.02 1 | In {city}, {person} opened a {business} that soon became popular with students.
.02 1 | {concept} were added to {lang} to make programs shorter. Many libraries rely on them.
.02 1 | The function returns an error when {matter} is reported twice.
.02 1 | Every {structure} keeps its elements in an order that makes lookups fast.
.02 1 | {framework} {k}.{m} documentation: configuration, deployment, and upgrading from {k}.{m}.
.02 1 | Linear algebra is the study of vectors, matrices and the maps between them.
.02 1 | The derivative measures how a quantity changes; the integral adds such changes up.
.02 1 | Euclid's proof is among the oldest that are still taught. It was written more than two thousand years ago.
.02 1 | Our team of {n} people builds {product}s in {country}. We care about {topic}.
.02 1 | Pursuant to article {k}, the tenant shall report {matter} within {n} days.
.02 1 | Patient presents with {matter}, no fever, blood pressure {n} over {m}.
.02 1 | Ingredients: {food}, {food2}, salt, oil. Energy per 100 g: {n}{k} kJ.
.02 1 | {product}, {colour}, stainless steel, {n} ml
.02 1 | {person} joined the company in 20{k} and leads the team for {topic}.
.02 1 | {happening}: causes, course and consequences. A reader edited by {person} and {person2}.
.02 1 | {sentence} {sentence} {sentence}
.02 1 | "{sentence}" said {person}, looking at the {place}.
.02 1 | {city} {city2} train timetable
.02 1 | {food} {food2} recipe easy
.02 1 | {animal} lifespan
.02 1 | used {product} {city}
.02 1 | Der Zug nach Wien fährt von Gleis vier ab und hält in jeder größeren Stadt.
.02 1 | La ville compte deux musées et un port de pêche très fréquenté en été.
.02 1 | El río nace en las montañas y llega al mar después de un largo camino.
.02 1 | query: {adjective} {product} for women
.02 1 | query: {food} without {food2}
.02 1 | query: how to {easy_do}
.02 1 | passage: {figure} lived in {city} and later in {city2}.
.02 1 | passage: The river rises near {city} and flows into the sea.
.02 1 | passage: {concept} are one of the main features of {lang}.
.02 1 | The {place} holds more than {n} paintings, most of them given by one family in 19{n}.
.02 1 | The archive keeps letters from 18{n} to 19{m}. They were found in a cellar in {city}.
.02 1 | {person} was elected with {n} percent of the votes. The turnout was higher than {k} years before.
.02 1 | {city} beat {city2} by {k} to {k2} on Saturday. The second half was {adjective}.
.02 1 | Rain is expected in the north, with up to {n} millimetres by the evening.
.02 1 | Shares of the company fell by {k} percent after it cut its forecast.
.02 1 | The bridge was closed for {n} weeks while its {colour} paint was renewed.
.02 1 | This paper presents a method for {topic}. Experiments on {k} data sets show an improvement of {m} percent.
.02 1 | She put the {objects} on the table, opened the window and waited for {person}.
.02 1 | It had been a {adjective} winter, and nobody in the village spoke of {topic} any more.
.02 1 | Cells divide, grow and die. The process is controlled by genes that were first described in {animal}s.
.02 1 | Sorting algorithms differ in how many comparisons they need and whether they keep equal elements in order.
.02 1 | Relational databases store rows in tables and find them again with the help of indexes.
.02 1 | An integer is even if it is divisible by two. All other integers are called odd.
"""

# fmt: off
SLOTS: Final[Mapping[str, Sequence[str]]] = {
    "lang": "Python JavaScript TypeScript Java Rust Go C C++ C# Ruby PHP Kotlin Swift Haskell Scala Bash".split(),
    "lang2": "Python TypeScript Rust Go Java C++".split(),
    "framework": "React Django FastAPI Flask Spring Rails Express Vue Angular Next.js Laravel Svelte".split(),
    "easy_fn": [
        "returns the sum of a list", "checks whether a string is a palindrome", "counts the vowels of a word",
        "removes duplicates and keeps the order", "finds the largest number", "returns the n-th Fibonacci number",
        "flattens a nested list", "converts Celsius to Fahrenheit", "counts the words of a file",
        "returns the even numbers", "joins two lists into a dictionary", "validates an email address",
    ],
    "easy_do": [
        "read a file line by line", "sort a list in reverse", "parse a date", "rename all files in a folder",
        "download a web page", "remove whitespace from a string", "generate a random password", "count lines",
        "split a string on commas", "write JSON to a file", "loop over a dictionary", "measure the run time",
    ],
    "algorithm": [
        "Dijkstra's algorithm", "quicksort", "a red-black tree", "the A* search", "Kruskal's algorithm", "merge sort",
        "a trie with prefix search", "the Knuth-Morris-Pratt search", "a segment tree", "topological sorting",
        "a bloom filter", "consistent hashing", "the Raft leader election", "union-find", "edit distance",
    ],
    "structure": ["queue", "B-tree", "priority queue", "ring buffer", "skip list", "hash map", "thread pool", "rate limiter"],
    "snippet": [
        "def f(xs):\n    total = 0\n    for x in xs:\n        total =+ x\n    return total",
        "for (let i = 0; i <= items.length; i++) {{\n  console.log(items[i].name);\n}}",
        "x = [1, 2, 3]\ny = x\ny.append(4)\nprint(x)",
        'fn main() {{\n    let s = String::from("hi");\n    let t = s;\n    println!("{{}}", s);\n}}',
        "SELECT name, COUNT(*) FROM orders WHERE total > 10;",
        "def fib(n):\n    return fib(n - 1) + fib(n - 2)",
        "public int add(int a, int b) {{ return a - b; }}",
        "while True:\n    line = f.readline()\n    if line == None:\n        break",
        "int* p = malloc(10);\np[10] = 1;\nfree(p);",
        "const total = prices.reduce((a, b) => a + b);",
        "words = text.split()\ncounts = {{}}\nfor w in words:\n    counts[w] += 1",
        "func sum(xs []int) int {{\n  s := 0\n  for i := range xs {{ s += i }}\n  return s\n}}",
    ],
    "error": [
        "TypeError: 'NoneType' object is not subscriptable", "IndexError: list index out of range", "NullPointerException",
        "KeyError: 'id'", "Segmentation fault (core dumped)", "ReferenceError: x is not defined", "ModuleNotFoundError: No module named 'yaml'",
        "error[E0382]: borrow of moved value", "java.lang.ClassCastException", "CORS policy: No 'Access-Control-Allow-Origin' header",
        "ConnectionRefusedError: [Errno 111]", "SyntaxError: unexpected EOF while parsing", "panic: runtime error: index out of range",
    ],
    "expr": [
        "[x * 2 for x in range(5)]", "'{word}'[1:3]", "sorted([{n}, {m}, {k}])", "{{'a': {k}, 'b': {m}}}['a']", "max(len(w) for w in ['a', '{word}'])",
        "sum([{k}, {m}, {n}])", "list(range({k}, {n}, {k2}))", "'{word}'.replace('{letter}', '{letter2}')", "[{n}, {m}][-1]", "'-'.join(['{word}', 'x'])",
        "{n} // {k}", "{n} % {k} == 0", "bool([])", "len('{word}') * {k}", "dict(zip('ab', [{k}, {m}]))", "[c for c in '{word}' if c in 'aeiou']",
    ],
    "sql_do": [
        "returns the ten best customers", "counts the orders per day", "finds duplicate rows", "joins users and orders", "deletes rows older than a year",
        "selects the employees who earn above {n}000", "lists products never sold",
    ],
    "sql_hard": [
        "ranks customers by revenue per city with a window function", "shows the running total per customer", "finds customers whose orders grew three months in a row",
        "returns the median total per city", "lists pairs of customers who always order on the same day",
    ],
    "table": "orders users events invoices sessions products".split(),
    "column": "email created_at status customer_id price name".split(),
    "cloud": ["virtual network", "Kubernetes cluster", "managed database", "load balancer"],
    "pattern": ["an email address", "a date like 2024-01-31", "an IPv4 address", "a hex colour", "a US phone number", "text in quotes", "a price in euros"],
    "regex": [r"(\\d+)-(\\w+)", r"[A-Z]{{2}}\\d{{4}}", r"(?:https?://)?[\\w.]+", r"\\s*#.*"],
    "git_do": ["squash three commits", "rebase onto main", "delete a remote branch", "find the commit that broke a test", "stash only one file"],
    "shell_do": ["find files larger than 100 MB", "kill the process on port 8080", "count lines in all .py files", "replace a word in every file", "show disk usage by folder"],
    "concept": [
        "closures", "generators", "async and await", "decorators", "interfaces", "lifetimes", "list comprehensions", "pattern matching", "dependency injection",
        "garbage collection", "mutexes", "inheritance", "type inference", "promises",
    ],
    "concept2": ["callbacks", "threads", "traits", "abstract classes", "tuples", "pointers", "channels", "iterators", "composition"],
    "thing": ["users", "invoices", "news articles", "sensor readings", "books", "tickets", "flights", "recipes", "orders"],
    "name": "total is_valid clean first_word make_key double shorten squares initials".split(),
    "arg": "s xs text n words items d".split(),
    "desc": ["the last letter of s", "twice n", "the longest word", "the items in reverse", "the number of spaces", "the sum of squares"],
    "grammar": ["arithmetic expressions", "JSON", "a Lisp", "boolean formulas", "a template language"],
    "leet": [
        "find the longest increasing subsequence", "count the inversions", "find the smallest missing positive number", "find two numbers that add up to {n}",
        "compute the maximum of every window of size {k}", "merge overlapping intervals", "find the median of two sorted arrays",
    ],
    "pandas_do": ["group by month and sum", "drop duplicate rows", "fill missing values with the median", "pivot by category", "merge two frames on a key"],
    "numpy_do": ["compute pairwise distances", "normalise the rows", "one-hot encode labels", "find the k largest values", "compute a moving average"],
    "word": "planet garden silver window monkey bridge candle rocket forest pepper".split(),
    "letter": list("aeinrst"),
    "letter2": list("oxzuw"),
    "n": [str(i) for i in range(12, 99, 3)],
    "n2": [str(i) for i in range(10, 99, 7)],
    "n3": [str(i) for i in range(40, 99, 5)],
    "m": [str(i) for i in range(11, 60, 4)],
    "k": [str(i) for i in range(2, 10)],
    "k2": [str(i) for i in range(2, 10)],
    "prime": "2 3 5 7 11 13 17".split(),
    "person": "Anna Ben Clara Omar Mei Tom Priya Lukas Fatima Jack Sofia Diego".split(),
    "person2": "Peter Lily Ivan Zoe Hassan Nora Kim Paul".split(),
    "person3": "Ruth Sam Eva Max Leo".split(),
    "objects": "apples marbles books stickers pencils cookies coins stamps eggs balloons".split(),
    "city": "Paris Berlin Tokyo Lisbon Chicago Nairobi Lima Oslo Mumbai Sydney Vienna Cairo".split(),
    "city2": "Rome Madrid Dublin Prague Boston Hanoi Accra".split(),
    "country": "France Japan Brazil Kenya Canada Norway Egypt India Peru Poland Vietnam Mexico Ghana Chile".split(),
    "theorem": [
        "there are infinitely many primes", "every bounded monotone sequence converges", "the sum of two even numbers is even", "a continuous function on a closed interval is bounded",
        "every tree with n vertices has n - 1 edges", "the angles of a triangle add up to two right angles", "the set of real numbers is uncountable",
    ],
    "induction": ["1 + 2 + ... + n = n(n+1)/2", "2^n > n for all n", "n^3 - n is divisible by 6", "the sum of the first n odd numbers is n^2"],
    "event": ["rolling two sixes with two dice", "getting exactly {k} heads in {m} coin tosses", "two of {n} people sharing a birthday", "drawing a flush"],
    "draw": ["both are red", "they have different colours", "at least one is blue"],
    "seating": ["around a round table", "in a row so that two of them are not neighbours", "on {m} chairs"],
    "digits": ["no repeated digit", "only odd digits", "a digit sum of {m}"],
    "colour": "red blue green white black yellow".split(),
    "colour2": "grey purple orange brown silver".split(),
    "plural": "cats poets roses engineers lamps sailors".split(),
    "plural2": "dancers flowers teachers animals tools".split(),
    "plural3": "singers plants giants lawyers".split(),
    "place": "museum library harbour market castle station bridge".split(),
    "riddle": ["I have keys but open no locks.", "I speak without a mouth.", "The more you take, the more you leave behind.", "I have cities but no houses."],
    "animal": "cat elephant penguin dolphin horse rabbit owl fox bear koala".split(),
    "animal2": "mouse whale tiger sparrow donkey frog".split(),
    "food": "rice tomatoes lentils salmon bread mushrooms apples cheese spinach chicken".split(),
    "food2": "beans potatoes garlic eggs carrots noodles".split(),
    "book": ["Hamlet", "Don Quixote", "Moby-Dick", "War and Peace", "The Odyssey", "Pride and Prejudice", "Faust", "Frankenstein"],
    "painting": ["the Mona Lisa", "The Starry Night", "Guernica", "The Night Watch", "Girl with a Pearl Earring"],
    "happening": ["the French Revolution", "the moon landing", "the fall of the Berlin Wall", "the First World War", "the sinking of the Titanic", "the Black Death"],
    "figure": ["Marie Curie", "Napoleon", "Cleopatra", "Isaac Newton", "Nelson Mandela", "Frida Kahlo", "Mozart", "Ada Lovelace"],
    "invention": ["telephone", "printing press", "bicycle", "light bulb", "steam engine", "telescope"],
    "nonsense": "wugs blickets daxes zorps fleems snarks".split(),
    "nonsense2": "toves mimsies gazzles quibs plonkers".split(),
    "numbers": ["fractions", "real numbers", "irrational numbers", "decimals"],
    "sport": ["tennis", "baseball", "curling", "rugby", "chess", "volleyball", "ice hockey"],
    "feat": ["climb Mount Everest", "fly across the Atlantic", "win an Olympic medal", "reach the South Pole", "go into space"],
    "club": ["choir", "chess club", "football team", "reading circle", "allotment society"],
    "foreign": ["Das Wetter ist heute schön.", "Où est la gare ?", "Me gusta la música.", "Dove abiti?", "Jag heter Anna."],
    "superlative": "ocean desert island lake country animal".split(),
    "category": ["fruit", "river in Europe", "musical instrument", "metal", "planet", "sport played with a ball"],
    "category_plural": ["vegetables", "birds", "European capitals", "colours", "types of cheese", "board games", "famous scientists"],
    "adjective": "happy ancient brave gentle cheap noisy narrow sturdy bitter".split(),
    "element": "gold iron helium sodium copper oxygen".split(),
    "topic": [
        "photosynthesis", "climate change", "inflation", "remote work", "democracy", "electric cars", "the Renaissance", "black holes", "yoga",
        "nuclear power", "social media", "jazz", "the immune system", "solar energy", "coffee", "stoicism", "plate tectonics", "artificial intelligence",
    ],
    "topic2": ["renewable energy", "socialism", "the Baroque", "public transport", "meditation", "television", "wind power", "tea", "evolution"],
    "nature": ["the sea", "autumn", "a quiet forest", "the night sky", "spring rain", "mountains at dawn", "snow"],
    "matter": ["a late invoice", "a broken heating", "a noisy neighbour", "a delayed delivery", "a headache", "a lost suitcase", "a missed deadline"],
    "job": "nurse teacher carpenter pilot librarian chef lawyer gardener".split(),
    "job2": "baker judge doctor plumber".split(),
    "product": ["water bottle", "desk lamp", "rucksack", "coffee grinder", "bicycle helmet", "headphones", "tent", "wool jumper"],
    "business": ["bakery", "bookshop", "cycling club", "coffee bar", "dog hotel", "tea house"],
    "tongue": "French German Spanish Italian Japanese Portuguese Dutch".split(),
    "feeling": "sad tired nervous lonely stressed bored".split(),
    "activity": ["learning the guitar", "running a marathon", "gardening", "saving money", "photography", "sleeping better", "public speaking", "moving abroad"],
    "saying": ["a bird in the hand is worth two in the bush", "break the ice", "the early bird catches the worm", "bite the bullet"],
    "search": [
        "best running shoes for flat feet", "cheap flights to {city}", "history of {country} railways", "{topic} effects on teenagers", "how photosynthesis works in algae",
        "{product} reviews", "python asyncio tutorial", "symptoms of vitamin d deficiency", "{city} weather in may", "documents about {topic}", "{job} salary {country}",
    ],
    "sentence": [
        "The weather in {city} was {adjective} all week.", "{person} forgot the keys at the {place} again.", "Our order arrived two days late and the box was damaged.",
        "The committee will meet on Monday to talk about {matter}.", "Most visitors come for the {food} and stay for the music.", "She has been working as a {job} since last year.",
        "The new {product} is lighter than the old one.", "He dont know where the {place} are.", "Scientists found water under the ice of a distant moon.",
    ],
    "passage": [
        "The old {place} of {city} was built four hundred years ago and has been restored twice. Today it draws visitors from all over {country}.",
        "Interest in {topic} has grown steadily. Surveys show that younger people are more open to it than their parents were.",
        "{person} grew up near {city} and moved to {city2} to work as a {job}. After ten years the family returned.",
        "The company reported higher sales in the second quarter, driven by demand for its {product}. Costs rose as well.",
        "Bees communicate by dancing. The angle of the dance tells the others where the flowers are, and its length how far away.",
        "Glaciers move slowly under their own weight. As they move, they carve valleys and carry stones over long distances.",
        "{framework} applications are often deployed in containers. Each container holds one service with what it depends on.",
        "The study followed {n} adults over {k} years. Those who walked daily reported fewer colds and better sleep.",
        "Trade along the coast made {city} rich. Merchants dealt in {food}, cloth and silver, and kept careful books.",
    ],
}
# fmt: on


def stems() -> list[Stem]:
    """Return every stem of every kind."""
    lists = {"code": CODE, "reasoning": REASONING, "general": GENERAL, "embedding": EMBEDDING}
    return [
        _stem(kind, line) for kind, lines in lists.items() for line in lines.strip().split("\n")
    ]


def prompts(split: Split, *, per_stem: int, seed: int) -> Iterator[tuple[Stem, str]]:
    """Yield *per_stem* prompts of every stem of *split*, the same for the same seed."""
    rng = Random(f"{split}:{seed}")  # noqa: S311 - reproducible on purpose, nothing secret
    for stem in stems():
        if stem.split == split:
            for _ in range(per_stem):
                yield stem, _typed(_filled(stem.text, rng), rng)


def _stem(kind: str, line: str) -> Stem:
    figures, _, text = line.partition(" | ")
    difficulty, tokens = figures.split()
    return Stem(
        kind=kind,
        text=text.replace(r"\n", "\n"),
        difficulty_ratio=float(difficulty),
        output_tokens=float(tokens),
    )


def _filled(text: str, rng: Random) -> str:
    """Fill the slots of *text*, and those of what fills them."""
    text = text.replace("{{", "\0").replace("}}", "\1")
    while _SLOT.search(text):
        text = _SLOT.sub(lambda slot: _choice(slot[1], rng), text)
    return text.replace("\0", "{").replace("\1", "}")


def _choice(slot: str, rng: Random) -> str:
    return rng.choice(SLOTS[slot]).replace("{{", "\0").replace("}}", "\1")


def _typed(text: str, rng: Random) -> str:
    """Return *text* as some people type: in lower case, without its last mark, with a space too many."""
    draw = rng.random()
    lower, unmarked, spaced = 0.12, 0.2, 0.23
    if draw < lower:
        return text.lower()
    if draw < unmarked:
        return text.rstrip(".?!")
    return f"{text} " if draw < spaced else text
