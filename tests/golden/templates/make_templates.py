"""Writes tokenizer.json, answers.json and, with EDGEPIPE_SHARED, real.json: what transformers makes of chats with the well-known
templates, as text and as ids, for check_template.c.

    python tests/golden/templates/make_templates.py      (transformers, tokenizers, jinja2)

The templates are written down here in short: the same text for user, assistant and system as the
models' own, without their branches for tools.
"""
import json
import os
import pathlib

from transformers import AutoTokenizer, PreTrainedTokenizerFast

HERE = pathlib.Path(__file__).parent
ALTERNATE = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
)
SYSTEM_APART = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}"
    "{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}"
)
CHATML = (
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
DEFAULT = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nWORDS<|im_end|>\\n' }}{% endif %}" + CHATML
)
QWEN25 = """{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant") %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
"""
QWEN3 = """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is defined and message.reasoning_content is not none %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in message.content %}
                {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}
                {%- set reasoning_content = message.content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
"""
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}" + ALTERNATE +
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
    "+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
)
LLAMA31 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
"""
MISTRAL1 = (
    "{{ bos_token }}{% for message in messages %}" + ALTERNATE + "{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ message['content'] + eos_token + ' ' }}{% else %}{{ raise_exception('no') }}{% endif %}{% endfor %}"
)
MISTRAL2 = SYSTEM_APART + (
    "{{- bos_token }}{%- for message in loop_messages %}" + ALTERNATE +
    "{%- if message['role'] == 'user' %}{%- if loop.first and system_message is defined %}"
    '{{- " [INST] " + system_message + "\\n\\n" + message["content"] + " [/INST]" }}{%- else %}'
    '{{- " [INST] " + message["content"] + " [/INST]" }}{%- endif %}{%- elif message["role"] == "assistant" %}'
    '{{- " " + message["content"] + eos_token}}{%- endif %}{%- endfor %}'
)
MISTRAL3 = SYSTEM_APART + (
    "{{- bos_token }}{%- for message in loop_messages %}" + ALTERNATE +
    "{%- if message['role'] == 'user' %}{%- if loop.last and system_message is defined %}"
    '{{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}{%- else %}'
    '{{- "[INST] " + message["content"] + "[/INST]" }}{%- endif %}{%- elif message["role"] == "assistant" %}'
    '{{- " " + message["content"]|trim + eos_token}}{%- endif %}{%- endfor %}'
)
GEMMA_TURN = (
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}"
    "{% endif %}{{ '<start_of_turn>' + role + '\\n' + PREFIX message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}" + ALTERNATE + GEMMA_TURN.replace("PREFIX ", "")
)
GEMMA3 = (
    "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}"
    "{%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}{%- set loop_messages = messages[1:] -%}"
    "{%- else -%}{%- set first_user_prefix = '' -%}{%- set loop_messages = messages -%}{%- endif -%}"
    "{%- for message in loop_messages -%}" + ALTERNATE +
    GEMMA_TURN.replace("PREFIX ", "(first_user_prefix if loop.first else '') + ")
)
PHI = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\\n' + message['content'] + '<|end|>\\n'}}"
    "{% elif message['role'] == 'user' %}{{'<|user|>\\n' + message['content'] + '<|end|>\\n'}}"
    "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'system' %}\n{{ '<|system|>\\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
ALPACA = (
    "{% if messages[0]['role'] == 'system' %}{% set words = messages[0]['content'] %}{% set loop_messages = messages[1:] %}"
    "{% else %}{% set words = 'Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request.' %}{% set loop_messages = messages %}{% endif %}{{ words + '\\n\\n' }}"
    "{% for message in loop_messages %}" + ALTERNATE + "{% if message['role'] == 'user' %}"
    "{{ ('' if loop.first else '\\n\\n') + '### Instruction:\\n' + message['content'] + '\\n\\n' }}"
    "{% else %}{{ '### Response:\\n' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)

# name as edgepipe recognises it (null: it is asked for by name), template
TEMPLATES = [
    ("chatml", "chatml", "{% for message in messages %}" + CHATML),
    ("chatml", "chatml", "{{ bos_token }}{% for message in messages %}" + CHATML),
    ("chatml", None, DEFAULT.replace("WORDS", "You are a helpful AI assistant named SmolLM, trained by Hugging Face")),
    ("qwen", "qwen", QWEN25),
    ("qwen2", "qwen2", DEFAULT.replace("WORDS", "You are a helpful assistant.")),
    ("qwen3", "qwen3", QWEN3),
    ("llama2", "llama2", LLAMA2),
    ("llama3", "llama3", LLAMA3),
    ("llama3.1", "llama3.1", LLAMA31),
    ("mistral-v1", None, MISTRAL1),
    ("mistral-v1", "mistral-v1", MISTRAL1.replace(" + ' '", "")),
    ("mistral", "mistral", MISTRAL2),
    ("mistral-v3", "mistral-v3", MISTRAL3),
    ("gemma", "gemma", GEMMA),
    ("gemma3", "gemma3", GEMMA3),
    ("phi", "phi", PHI),
    ("zephyr", "zephyr", ZEPHYR),
    (None, "alpaca", ALPACA),
]
U, A, S = "user", "assistant", "system"
CHATS = [
    [(U, "Hello"), (A, "Hi there")],
    [(S, "You are short."), (U, "Who are you"), (A, "Nobody"), (U, "Why?"), (A, "Because.")],
    [(U, "  two\u00a0 \n"), (A, "\n\nlines\n "), (U, "\tand \u3000"), (A, "   I am an assistant   ")],
    [(S, "  s "), (U, " caf\u00e9 \u4f60\u597d 12345 "), (A, "\U0001f642 ok")],
    [(U, "no answer")],
    [(U, "1"), (A, ""), (U, ""), (A, "2")],
    [(U, "think"), (A, "<think>\nfirst\n</think>\n\nold"), (U, "again"), (A, "<think>\nhm\n\n</think>\n\nnew")],
    [(U, "a"), (A, "b"), (U, "c")],
    [(S, "one"), (U, "a"), (S, "two"), (A, "b")],
    [(U, "a"), (U, "b"), (A, "c"), (A, "d")],
    [(A, "first"), (U, "a"), (A, "b")],
]
TOKENS = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>",
          "<end_of_turn>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "[INST]", "[/INST]"]


# How the templates above go on where an answer is asked for, where the parts of them that are needed there end before that.
ANSWERS = {
    "qwen": "<|im_start|>assistant\\n", "qwen3": "<|im_start|>assistant\\n",
    "llama3": "<|start_header_id|>assistant<|end_header_id|>\\n\\n",
    "llama3.1": "<|start_header_id|>assistant<|end_header_id|>\\n\\n",
    "gemma": "<start_of_turn>model\\n", "gemma3": "<start_of_turn>model\\n", "alpaca": "### Response:\\n",
}


def write_questions(base):
    """What is asked, up to where the answer begins: the chats of generate --chat, [system, user]."""
    asked = [[None, "Hello"], ["Be short.", "  Who are\nyou? \u4f60 "], [None, ""]]
    rows = []
    for recognised, name, jinja in TEMPLATES:
        if "add_generation_prompt" not in jinja and name in ANSWERS:
            jinja += "{% if add_generation_prompt %}{{ '" + ANSWERS[name] + "' }}{% endif %}"
        cases = []
        for system, user in asked:
            chat = [{"role": S, "content": system}] * (system is not None) + [{"role": U, "content": user}]
            try:
                ids = base.apply_chat_template(chat, chat_template=jinja, add_generation_prompt=True, tokenize=True,
                                               return_dict=False)
            except Exception as e:
                assert "System" in str(e) or "alternate" in str(e), e
                cases.append(None)
                continue
            cases.append(list(ids))
        rows.append(json.dumps(cases))
    (HERE / "questions.json").write_text(json.dumps({"asked": asked})[:-1] + ',\n"templates": [\n' + ",\n".join(rows) + "]}\n")


def main():
    base = PreTrainedTokenizerFast(tokenizer_file=str(HERE.parent / "tokenizer" / "tokenizer.json"))
    base.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>", "additional_special_tokens": TOKENS})
    base.backend_tokenizer.save(str(HERE / "tokenizer.json"))
    answers = {"chats": [[{"role": r, "content": c} for r, c in chat] for chat in CHATS], "templates": []}
    for recognised, name, jinja in TEMPLATES:
        cases = []
        for chat in answers["chats"]:
            try:
                text = base.apply_chat_template(chat, chat_template=jinja, tokenize=False)
                ids = base.apply_chat_template(chat, chat_template=jinja, tokenize=True, return_dict=False)
            except Exception as e:
                assert "no" in str(e) or "alternate" in str(e) or "System" in str(e), e
                cases.append(None)
                continue
            cases.append({"text": text, "ids": list(ids)})
        answers["templates"].append({"recognised": recognised, "name": name, "jinja": jinja, "cases": cases})
    (HERE / "answers.json").write_text(json.dumps(answers, indent=1) + "\n")
    write_questions(base)
    if "EDGEPIPE_SHARED" in os.environ:
        write_real(answers["chats"])


def write_real(chats):
    """The ids of real tokenizers, with the templates that they bring."""
    lists = []
    for name in ("qwen2", "llama2"):
        folder = pathlib.Path(os.environ["EDGEPIPE_SHARED"]) / "data" / "tokenizers" / name
        tokenizer = AutoTokenizer.from_pretrained(folder)
        rows = [list(tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False)) for chat in chats]
        lists.append(f'"{name}": [\n' + ",\n".join(map(json.dumps, rows)) + "]")
    (HERE / "real.json").write_text("{\n" + ",\n".join(lists) + "}\n")


main()
