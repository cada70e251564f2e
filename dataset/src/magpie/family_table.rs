//! How families of chat models write turns down.
//!
//! Source: Magpie's `model_configs.json` (Xu et al. 2024, arXiv:2406.08464) and the models' own
//! templates.

use super::families::Family;

const CHATML: Family = Family {
    name: "chatml",
    beginning: "",
    system: Some(["<|im_start|>system\n", "<|im_end|>\n"]),
    default_system: "",
    user: ["<|im_start|>user\n", "<|im_end|>\n"],
    before_query: "",
    assistant: ["<|im_start|>assistant\n", "<|im_end|>\n"],
    stop_tokens: &["<|im_end|>", "<|im_start|>", "<|endoftext|>"],
    assistant_words: &["Assistant", "assistant"],
};

const LLAMA_3: Family = Family {
    name: "llama-3",
    beginning: "<|begin_of_text|>",
    system: Some([
        "<|start_header_id|>system<|end_header_id|>\n\n",
        "<|eot_id|>",
    ]),
    default_system: "",
    user: ["<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"],
    before_query: "",
    assistant: [
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
    ],
    stop_tokens: &[
        "<|eot_id|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
    ],
    assistant_words: &["assistant"],
};

const GEMMA: Family = Family {
    name: "gemma-1.1",
    beginning: "<bos>",
    system: None,
    default_system: "",
    user: ["<start_of_turn>user\n", "<end_of_turn>\n"],
    before_query: "",
    assistant: ["<start_of_turn>model\n", "<end_of_turn>\n"],
    stop_tokens: &["<end_of_turn>", "<eos>", "<start_of_turn>"],
    assistant_words: &["assistant"],
};

const PHI_3: Family = Family {
    name: "phi-3",
    beginning: "<s> ",
    system: Some(["<|system|>\n", "<|end|>\n"]),
    default_system: "",
    user: ["<|user|>\n", "<|end|>\n"],
    before_query: "",
    assistant: ["<|assistant|>\n", "<|end|>\n"],
    stop_tokens: &[
        "<|end|>",
        "<|endoftext|>",
        "<|assistant|>",
        "<|user|>",
        "<|system|>",
    ],
    assistant_words: &["assistant"],
};

const MISTRAL: Family = Family {
    name: "mistral",
    beginning: "<s> ",
    system: None,
    default_system: "",
    user: ["[INST] ", " [/INST]"],
    before_query: "",
    assistant: [" ", "</s>"],
    stop_tokens: &["</s>", "<s>"],
    assistant_words: &["assistant"],
};

/// Every family that is known, by name.
pub const FAMILIES: [Family; 17] = [
    CHATML,
    Family {
        name: "minimind",
        ..CHATML
    },
    Family {
        name: "minimind-v1",
        system: Some(["", ""]),
        user: ["<s>user\n", "</s>\n"],
        assistant: ["<s>assistant\n", "</s>\n"],
        stop_tokens: &["</s>", "<s>"],
        ..CHATML
    },
    Family {
        name: "qwen2",
        ..CHATML
    },
    Family {
        name: "qwen2.5",
        default_system: "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
        ..CHATML
    },
    Family {
        name: "qwen2.5-math",
        default_system: "Please reason step by step, and put your final answer within \\boxed{}.",
        ..CHATML
    },
    Family {
        name: "yi-1.5",
        beginning: "<|startoftext|>",
        stop_tokens: &["<|im_end|>", "<|im_start|>", "<|endoftext|>"],
        assistant_words: &["assistant"],
        ..CHATML
    },
    LLAMA_3,
    Family {
        name: "deepseek-r1",
        beginning: "<｜begin▁of▁sentence｜>",
        system: Some(["", ""]),
        user: ["<｜User｜>", ""],
        assistant: ["<｜Assistant｜>", "<｜end▁of▁sentence｜>"],
        stop_tokens: &["<｜end▁of▁sentence｜>", "<｜Assistant｜>", "<｜User｜>"],
        ..LLAMA_3
    },
    Family {
        name: "deepseek-coder-v2",
        beginning: "<｜begin▁of▁sentence｜>",
        system: Some(["", "\n\n"]),
        user: ["User: ", "\n\n"],
        assistant: ["Assistant:", "<｜end▁of▁sentence｜>"],
        stop_tokens: &["<｜end▁of▁sentence｜>"],
        ..LLAMA_3
    },
    GEMMA,
    Family {
        name: "gemma-2",
        before_query: "\n",
        ..GEMMA
    },
    PHI_3,
    Family {
        name: "phi-3-small",
        beginning: "<|endoftext|>",
        ..PHI_3
    },
    MISTRAL,
    Family {
        name: "llama-2",
        system: Some(["[INST] <<SYS>>\n", "\n<</SYS>>\n\n"]),
        ..MISTRAL
    },
    Family {
        name: "vicuna",
        beginning: "",
        system: Some(["", "\n\n"]),
        default_system: "A chat between a curious user and an artificial intelligence assistant. \
                         The assistant gives helpful, detailed, and polite answers to the user's \
                         questions.",
        user: ["USER: ", "\n"],
        assistant: ["ASSISTANT:", "</s>\n"],
        stop_tokens: &["</s>"],
        assistant_words: &["ASSISTANT"],
        ..MISTRAL
    },
];
