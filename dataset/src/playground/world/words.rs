//! What the people of the world are called, what they may own, be and do, and the sentences that
//! tell it: English first, Chinese second.

use crate::playground::lesson::Word;

/// Names for the people of the world and of the stories.
pub(in crate::playground) const PEOPLE: [Word; 24] = [
    ["Mia", "米娅"],
    ["Leo", "里奥"],
    ["Ada", "艾达"],
    ["Tom", "汤姆"],
    ["Ivy", "艾薇"],
    ["Max", "马克"],
    ["Zoe", "佐伊"],
    ["Ben", "阿本"],
    ["Eva", "伊娃"],
    ["Sam", "山姆"],
    ["Amy", "艾米"],
    ["Dan", "丹尼"],
    ["Lin", "小林"],
    ["Kai", "阿凯"],
    ["Nia", "妮娅"],
    ["Gus", "古斯"],
    ["Ida", "伊达"],
    ["Rex", "雷克"],
    ["Una", "尤娜"],
    ["Abe", "阿贝"],
    ["Fay", "菲菲"],
    ["Hal", "哈尔"],
    ["Joy", "小乔"],
    ["Ned", "内德"],
];

pub(super) const OBJECTS: [Word; 24] = [
    ["kite", "风筝"],
    ["drum", "鼓"],
    ["lamp", "灯"],
    ["boat", "小船"],
    ["clock", "钟"],
    ["harp", "竖琴"],
    ["cart", "小车"],
    ["sled", "雪橇"],
    ["bell", "铃铛"],
    ["flute", "笛子"],
    ["book", "书"],
    ["scarf", "围巾"],
    ["tent", "帐篷"],
    ["basket", "篮子"],
    ["ladder", "梯子"],
    ["mirror", "镜子"],
    ["teapot", "茶壶"],
    ["umbrella", "雨伞"],
    ["bicycle", "自行车"],
    ["violin", "小提琴"],
    ["camera", "相机"],
    ["compass", "指南针"],
    ["telescope", "望远镜"],
    ["blanket", "毯子"],
];

pub(super) const PLACES: [Word; 12] = [
    ["Fern Hill", "蕨山"],
    ["Clay Harbor", "陶港"],
    ["Mill Lane", "磨坊巷"],
    ["Moon Lake", "月湖"],
    ["Pine Wood", "松林"],
    ["Salt Bay", "盐湾"],
    ["Star Bridge", "星桥"],
    ["Wind Farm", "风庄"],
    ["Old Tower", "老塔"],
    ["Rose Garden", "玫瑰园"],
    ["Stone Well", "石井"],
    ["Snow Valley", "雪谷"],
];

pub(super) const COLORS: [Word; 8] = [
    ["red", "红色"],
    ["blue", "蓝色"],
    ["green", "绿色"],
    ["yellow", "黄色"],
    ["white", "白色"],
    ["black", "黑色"],
    ["purple", "紫色"],
    ["orange", "橙色"],
];

pub(super) const JOBS: [Word; 12] = [
    ["baker", "面包师"],
    ["doctor", "医生"],
    ["teacher", "老师"],
    ["painter", "画家"],
    ["farmer", "农夫"],
    ["sailor", "水手"],
    ["singer", "歌手"],
    ["gardener", "园丁"],
    ["potter", "陶工"],
    ["tailor", "裁缝"],
    ["fisher", "渔夫"],
    ["miller", "磨坊主"],
];

/// Ways to tell what a person owns, where it lives, and what it does.
pub(super) const OWNER_SENTENCES: [Word; 4] = [
    [
        "{name} owns {a} {color} {object}.",
        "{name}有一个{color}的{object}。",
    ],
    [
        "The {color} {object} belongs to {name}.",
        "{color}的{object}是{name}的。",
    ],
    [
        "The {object} of {name} is {color}.",
        "{name}的{object}是{color}的。",
    ],
    [
        "{name} is proud of the {color} {object}.",
        "{name}很喜欢自己{color}的{object}。",
    ],
];

pub(super) const HOME_SENTENCES: [Word; 3] = [
    ["{name} lives in {place}.", "{name}住在{place}。"],
    ["The home of {name} is in {place}.", "{name}的家在{place}。"],
    [
        "In {place} you can meet {name}.",
        "在{place}可以见到{name}。",
    ],
];

pub(super) const JOB_SENTENCES: [Word; 3] = [
    ["{name} is a {job}.", "{name}是{job}。"],
    ["{name} works as a {job}.", "{name}的工作是{job}。"],
    [
        "Everybody knows {name} the {job}.",
        "大家都认识{job}{name}。",
    ],
];

/// Little scenes between two people, in which all facts are true.
pub(super) const SCENES: [Word; 5] = [
    [
        "{name2} walks to {place} to see {name}, the {job}. {name} shows the {color} {object}. \
         \"It is lovely,\" says {name2}.",
        "{name2}走到{place}去看{job}{name}。{name}拿出{color}的{object}。“真好看”,{name2}说。",
    ],
    [
        "It rains in {place}. {name} stays at home with the {color} {object} and waits for {name2}.",
        "{place}下雨了。{name}在家里看着{color}的{object},等着{name2}。",
    ],
    [
        "\"Whose {object} is this?\" asks {name2}. \"It is {color}, so it belongs to {name} in \
         {place}.\"",
        "“这是谁的{object}?”{name2}问。“是{color}的,那就是{place}的{name}的。”",
    ],
    [
        "{name} the {job} and {name2} are friends. They carry the {color} {object} through {place} \
         and laugh.",
        "{job}{name}和{name2}是朋友。他们拿着{color}的{object}走过{place},笑了。",
    ],
    [
        "Early in {place}, {name} takes the {color} {object} to the market. {name2} helps the {job}.",
        "清早在{place},{name}带着{color}的{object}去集市。{name2}来帮{job}的忙。",
    ],
];

/// Everything about a person at once.
pub(super) const INTRODUCTION: [Word; 2] = [
    ["Who is {name}?", "{name}是谁?"],
    [
        "{name} is a {job}, lives in {place} and owns {a} {color} {object}.",
        "{name}是{job},住在{place},有{color}的{object}。",
    ],
];

pub(super) const NEIGHBOURS: Word = [
    "{name} and {name2} live in {place}. {name} has the {object}, {name2} has the {object2}.",
    "{name}和{name2}住在{place}。{name}有{object},{name2}有{object2}。",
];
