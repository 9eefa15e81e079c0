"""Prompts as people write them, drawn from stems with slots, for training the profile head.

A line of a list below is `difficulty tokens | stem`: how hard its prompts are in [0, 1], and about
how long their answers get. A stem belongs to one split whatever fills its slots.
"""

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
"""

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
        "fn main() {{\n    let s = String::from(\"hi\");\n    let t = s;\n    println!(\"{{}}\", s);\n}}",
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
}  # fmt: skip


def stems() -> list[Stem]:
    """Return every stem of every kind."""
    lists = {"code": CODE, "reasoning": REASONING, "general": GENERAL, "embedding": EMBEDDING}
    return [_stem(kind, line) for kind, lines in lists.items() for line in lines.strip().split("\n")]


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
    """Return *text* as some people type: in lower case, without the last mark, with a please."""
    draw = rng.random()
    if draw < 0.12:
        return text.lower()
    if draw < 0.2:
        return text.rstrip(".?!")
    if draw < 0.23:
        return f"{text} "
    return text
