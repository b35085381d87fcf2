/* ptx_module.cpp - see ptx_module.h. */
#include "ptx_module.h"

#include <algorithm>
#include <cctype>
#include <sstream>

namespace ptx
{

namespace
{

/* ---- text ------------------------------------------------------------------------- */

std::string trim(const std::string &text)
{
    const size_t first = text.find_first_not_of(" \t\r\n");
    if (first == std::string::npos)
        return "";
    return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

bool starts_with(const std::string &text, const std::string &start)
{
    return text.compare(0, start.size(), start) == 0;
}

/* At the separators that stand outside braces and brackets. */
std::vector<std::string> split(const std::string &text, char separator)
{
    std::vector<std::string> parts(1);
    int depth = 0;
    for (char c : text) {
        depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        if (c == separator && depth == 0)
            parts.emplace_back();
        else
            parts.back() += c;
    }
    for (std::string &part : parts)
        part = trim(part);
    return parts;
}

std::vector<std::string> words(const std::string &text)
{
    std::istringstream stream(text);
    std::vector<std::string> found;
    for (std::string word; stream >> word;)
        found.push_back(word);
    return found;
}

struct Statement {
    std::string text; /* "{" and "}" stand alone, a label keeps its colon */
    int line;
};

/* Comments and the three directives without a semicolon become blank, line numbers stay. */
std::string without_comments(const std::string &text)
{
    std::istringstream stream(text);
    std::string clean;
    for (std::string line; std::getline(stream, line);) {
        line = line.substr(0, line.find("//"));
        const std::string start = trim(line);
        if (!starts_with(start, ".version") && !starts_with(start, ".target") &&
            !starts_with(start, ".address_size"))
            clean += line;
        clean += '\n';
    }
    return clean;
}

std::vector<Statement> statements_of(const std::string &text)
{
    std::vector<Statement> statements;
    std::string now;
    int line = 1, begin = 1;
    const auto end = [&](const std::string &extra) {
        if (!trim(now).empty())
            statements.push_back({ trim(now), begin });
        if (!extra.empty())
            statements.push_back({ extra, line });
        now.clear();
    };
    for (char c : without_comments(text)) {
        line += c == '\n';
        if (now.empty()) { /* a statement does not begin with a blank */
            begin = line;
            if (std::isspace(static_cast<unsigned char>(c)) != 0)
                continue;
        }
        const bool inside_operands = now.find('{') != std::string::npos;
        const bool header = now.find(".entry") != std::string::npos;
        if (c == ';')
            end("");
        else if (c == '{' && (header || now.empty()))
            end("{");
        else if (c == '}' && !inside_operands)
            end("}");
        else if (c == ':' && now[0] == '$')
            end(trim(now) + ":"), statements.erase(statements.end() - 2);
        else
            now += c;
    }
    if (!trim(now).empty())
        throw Error(begin, "a statement without an end");
    return statements;
}

Type type_of(const std::string &word)
{
    if (word == "pred")
        return { 'p', 1 };
    if (word.size() < 2 || std::string("busf").find(word[0]) == std::string::npos)
        return {};
    for (int bytes = 1; bytes <= 8; bytes *= 2)
        if (word.substr(1) == std::to_string(8 * bytes))
            return { word[0], bytes };
    return {};
}

/* ---- one kernel ------------------------------------------------------------------- */

/* What the module declares outside of kernels. */
struct Outside {
    std::map<std::string, uint64_t> symbols;
    std::vector<uint8_t> constants;
    std::vector<std::string> dynamic_shared;
    size_t shared_bytes = 0;
};

class KernelParser
{
  public:
    KernelParser(const Statement &header, const Outside &outside);
    void add(const Statement &statement);
    Kernel finish();

  private:
    void declare_registers(const Statement &statement);
    void declare_array(const Statement &statement, uint64_t window, size_t *bytes);
    void add_instruction(const Statement &statement);
    Operand operand(const std::string &text, int line) const;
    Operand address(const std::string &text, int line) const;
    bool constant(const std::string &text, Operand *result) const;

    Kernel kernel_;
    std::map<std::string, int> registers_;
    std::map<std::string, uint64_t> symbols_;
    std::map<std::string, size_t> labels_;
    std::map<std::string, std::vector<std::string>> target_lists_; /* of indexed branches */
    std::string label_; /* that the next statement may belong to */
};

/* Stands for the address behind a kernel's own arrays until that is known. */
const uint64_t DYNAMIC_SHARED = SHARED_WINDOW + 0xffffffff;

size_t align(size_t bytes, size_t to)
{
    return (bytes + to - 1) / to * to;
}

/* .param .u64 name, .param .align 8 .b8 name[96] */
void add_parameter(const std::string &text, int line, Kernel *kernel,
                   std::map<std::string, uint64_t> *symbols)
{
    const std::vector<std::string> parts = words(text);
    const bool array = parts.size() > 4 && parts[1] == ".align";
    size_t bytes = 0, alignment = 0;
    std::string name = parts.back();
    if (parts.size() < 3 || parts[0] != ".param")
        throw Error(line, "parameter '" + text + "'");
    if (array) {
        const size_t bracket = name.find('[');
        alignment = std::stoul(parts[2]);
        bytes = std::stoul(name.substr(bracket + 1));
        name = name.substr(0, bracket);
    } else {
        bytes = alignment = static_cast<size_t>(type_of(parts[1].substr(1)).bytes);
    }
    if (bytes == 0)
        throw Error(line, "parameter '" + text + "'");
    kernel->parameters_bytes = align(kernel->parameters_bytes, alignment);
    (*symbols)[name] = PARAMETER_WINDOW + kernel->parameters_bytes;
    kernel->parameters.push_back({ kernel->parameters_bytes, bytes });
    kernel->parameters_bytes += bytes;
}

KernelParser::KernelParser(const Statement &header, const Outside &outside)
    : symbols_(outside.symbols)
{
    const size_t open = header.text.find('('), close = header.text.rfind(')');
    const size_t entry = header.text.find(".entry");
    if (open == std::string::npos || close == std::string::npos)
        throw Error(header.line, "a kernel without a list of parameters");
    kernel_.name = trim(header.text.substr(entry + 6, open - entry - 6));
    kernel_.constants = outside.constants;
    kernel_.shared_bytes = outside.shared_bytes;
    const std::string list = trim(header.text.substr(open + 1, close - open - 1));
    if (!list.empty())
        for (const std::string &parameter : split(list, ','))
            add_parameter(parameter, header.line, &kernel_, &symbols_);
}

/* .reg .b32 %r<13>; or .reg .b64 %SP; */
void KernelParser::declare_registers(const Statement &statement)
{
    const std::string name = words(statement.text).back();
    const size_t angle = name.find('<');
    if (angle == std::string::npos) {
        registers_.emplace(name, static_cast<int>(registers_.size()));
        return;
    }
    for (int i = 0; i < std::stoi(name.substr(angle + 1)); i++)
        registers_.emplace(name.substr(0, angle) + std::to_string(i),
                           static_cast<int>(registers_.size()));
}

/* .shared .align 8 .b8 name[48]; or .shared .align 4 .u32 name; */
void KernelParser::declare_array(const Statement &statement, uint64_t window, size_t *bytes)
{
    const std::vector<std::string> parts = words(statement.text);
    if (parts.size() != 5 || parts[1] != ".align" || type_of(parts[3].substr(1)).bytes == 0)
        throw Error(statement.line, "declaration '" + statement.text + "'");
    const size_t bracket = parts.back().find('[');
    const size_t count =
        bracket == std::string::npos ? 1 : std::stoul(parts.back().substr(bracket + 1));
    *bytes = align(*bytes, std::stoul(parts[2]));
    symbols_[parts.back().substr(0, bracket)] = window + *bytes;
    *bytes += count * static_cast<size_t>(type_of(parts[3].substr(1)).bytes);
}

bool KernelParser::constant(const std::string &text, Operand *result) const
{
    result->kind = Operand::Kind::CONSTANT;
    if (starts_with(text, "0f") || starts_with(text, "0d"))
        result->value = std::stoull(text.substr(2), nullptr, 16);
    else if (text[0] == '-')
        result->value = static_cast<uint64_t>(std::stoll(text, nullptr, 0));
    else if (std::isdigit(static_cast<unsigned char>(text[0])) != 0)
        result->value = std::stoull(text, nullptr, 0);
    else
        return false;
    return true;
}

/* [register], [symbol], either with +constant */
Operand KernelParser::address(const std::string &text, int line) const
{
    const std::string inside = trim(text.substr(1, text.size() - 2));
    const size_t plus = inside.find('+');
    const Operand base = operand(trim(inside.substr(0, plus)), line);
    Operand result;
    result.kind = Operand::Kind::ADDRESS;
    result.number = base.number;
    result.value = base.kind == Operand::Kind::CONSTANT ? base.value : 0;
    if (plus != std::string::npos)
        result.value += static_cast<uint64_t>(std::stoll(inside.substr(plus + 1), nullptr, 0));
    return result;
}

Operand KernelParser::operand(const std::string &text, int line) const
{
    static const std::map<std::string, Special> specials = {
        { "%tid.x", Special::TID_X },
        { "%tid.y", Special::TID_Y },
        { "%tid.z", Special::TID_Z },
        { "%ntid.x", Special::NTID_X },
        { "%ntid.y", Special::NTID_Y },
        { "%ntid.z", Special::NTID_Z },
        { "%ctaid.x", Special::CTAID_X },
        { "%ctaid.y", Special::CTAID_Y },
        { "%ctaid.z", Special::CTAID_Z },
        { "%nctaid.x", Special::NCTAID_X },
        { "%nctaid.y", Special::NCTAID_Y },
        { "%nctaid.z", Special::NCTAID_Z },
        { "%laneid", Special::LANEID },
        { "%cluster_ctarank", Special::CLUSTER_CTARANK },
        { "%cluster_nctarank", Special::CLUSTER_NCTARANK },
    };
    Operand result;
    if (text.empty())
        throw Error(line, "an operand is missing");
    if (text[0] == '[')
        return address(text, line);
    if (text[0] == '{' || text.find('|') != std::string::npos) {
        const bool vector = text[0] == '{';
        result.kind = Operand::Kind::VECTOR;
        for (const std::string &part :
             vector ? split(text.substr(1, text.size() - 2), ',') : split(text, '|'))
            result.parts.push_back(operand(part, line));
    } else if (registers_.count(text) != 0) {
        result.kind = Operand::Kind::REGISTER;
        result.number = registers_.at(text);
    } else if (specials.count(text) != 0) {
        result.kind = Operand::Kind::SPECIAL;
        result.special = specials.at(text);
    } else if (symbols_.count(text) != 0) {
        result.value = symbols_.at(text);
    } else if (text[0] == '$') {
        result.kind = Operand::Kind::LABEL;
        result.label = text;
    } else if (text == "_") {
        result.kind = Operand::Kind::NOTHING;
    } else if (!constant(text, &result)) {
        throw Error(line, "operand '" + text + "'");
    }
    return result;
}

void KernelParser::add_instruction(const Statement &statement)
{
    Instruction instruction;
    std::string text = statement.text;
    instruction.line = statement.line;
    if (text[0] == '@') {
        const size_t space = text.find_first_of(" \t");
        instruction.guard_negated = text[1] == '!';
        instruction.guard = operand(text.substr(instruction.guard_negated ? 2 : 1,
                                                space - (instruction.guard_negated ? 2 : 1)),
                                    statement.line)
                                .number;
        text = trim(text.substr(space));
    }
    const size_t end = text.find_first_of(" \t");
    instruction.text = text.substr(0, end);
    instruction.modifiers = split(instruction.text, '.');
    instruction.operation = instruction.modifiers[0];
    instruction.modifiers.erase(instruction.modifiers.begin());
    for (const std::string &modifier : instruction.modifiers)
        if (type_of(modifier).bytes != 0) {
            instruction.source_type = instruction.type;
            instruction.type = type_of(modifier);
        }
    for (const auto &space :
         std::map<const char *, Space>{ { "global", Space::GLOBAL },
                                        { "shared", Space::SHARED },
                                        { "shared::cta", Space::SHARED },
                                        { "shared::cluster", Space::CLUSTER },
                                        { "local", Space::LOCAL },
                                        { "param", Space::PARAMETER },
                                        { "const", Space::CONSTANT } })
        if (instruction.has(space.first))
            instruction.space = space.second;
    if (instruction.operation == "cvt")
        std::swap(instruction.type, instruction.source_type);
    if (end != std::string::npos)
        for (const std::string &part : split(trim(text.substr(end)), ','))
            instruction.operands.push_back(operand(part, statement.line));
    kernel_.instructions.push_back(instruction);
}

void KernelParser::add(const Statement &statement)
{
    const std::string &text = statement.text;
    const std::string label = label_;
    label_.clear();
    if (text.back() == ':')
        labels_[label_ = text.substr(0, text.size() - 1)] = kernel_.instructions.size();
    else if (starts_with(text, ".branchtargets"))
        target_lists_[label] = split(trim(text.substr(14)), ',');
    else if (starts_with(text, ".reg"))
        declare_registers(statement);
    else if (starts_with(text, ".shared"))
        declare_array(statement, SHARED_WINDOW, &kernel_.shared_bytes);
    else if (starts_with(text, ".local"))
        declare_array(statement, LOCAL_WINDOW, &kernel_.local_bytes);
    else if (starts_with(text, ".pragma"))
        return; /* advice to the next compiler */
    else if (text[0] == '.')
        throw Error(statement.line, "directive '" + text + "'");
    else
        add_instruction(statement);
}

Kernel KernelParser::finish()
{
    for (Instruction &instruction : kernel_.instructions)
        for (const Operand &operand : instruction.operands)
            if (operand.kind == Operand::Kind::LABEL) {
                if (labels_.count(operand.label) == 0)
                    throw Error(instruction.line, "no label " + operand.label);
                instruction.target = labels_.at(operand.label);
                if (target_lists_.count(operand.label) != 0)
                    for (const std::string &one : target_lists_.at(operand.label))
                        instruction.targets.push_back(labels_.at(one));
            }
    kernel_.shared_bytes = align(kernel_.shared_bytes, 16);
    for (Instruction &instruction : kernel_.instructions)
        for (Operand &operand : instruction.operands)
            if (operand.value == DYNAMIC_SHARED)
                operand.value = SHARED_WINDOW + kernel_.shared_bytes;
    kernel_.register_count = registers_.size();
    return kernel_;
}

} // namespace

bool Instruction::has(const char *modifier) const
{
    return std::find(modifiers.begin(), modifiers.end(), modifier) != modifiers.end();
}

namespace
{

/* .global .align 4 .b8 name[16] = {1, 2, 3}; and the array that a launch gives its size. */
void declare_outside(const Statement &statement, Outside *outside)
{
    const std::vector<std::string> parts = words(statement.text);
    const auto is = [&](const char *word) {
        return std::find(parts.begin(), parts.end(), word) != parts.end();
    };
    const auto named = std::find_if(parts.begin(), parts.end(), [](const std::string &part) {
        return part.find('[') != std::string::npos;
    });
    const auto alignment = std::find(parts.begin(), parts.end(), ".align");
    if (named == parts.end() || alignment == parts.end())
        throw Error(statement.line, "outside of kernels: '" + statement.text + "'");
    const size_t bracket = named->find('[');
    const std::string name = named->substr(0, bracket);
    if (is(".shared")) {
        if (!is(".extern"))
            throw Error(statement.line, "shared memory outside of kernels");
        outside->symbols[name] = DYNAMIC_SHARED;
        return;
    }
    if (!is(".b8") || (!is(".global") && !is(".const")))
        throw Error(statement.line, "outside of kernels: '" + statement.text + "'");
    std::vector<uint8_t> &all = outside->constants;
    all.resize(align(all.size(), std::stoul(*(alignment + 1))));
    outside->symbols[name] = CONSTANT_WINDOW + all.size();
    const size_t begin = all.size();
    all.resize(begin + std::stoul(named->substr(bracket + 1)));
    const size_t open = statement.text.find('{'), close = statement.text.rfind('}');
    if (open == std::string::npos)
        return;
    size_t at = begin;
    for (const std::string &byte :
         split(statement.text.substr(open + 1, close - open - 1), ','))
        all.at(at++) = static_cast<uint8_t>(std::stoul(byte));
}

} // namespace

Source::Source(const std::string &text) : text_(text)
{
    const std::string entry = ".entry ";
    for (size_t at = text_.find(entry); at != std::string::npos; at = text_.find(entry, at)) {
        const size_t line = text_.rfind('\n', at) + 1;
        if (begins_.empty())
            outside_ = text_.substr(0, line);
        at += entry.size();
        begins_[trim(text_.substr(at, text_.find('(', at) - at))] = line;
    }
}

bool Source::has(const std::string &kernel) const
{
    return begins_.count(kernel) != 0;
}

/* Behind what stands before the first kernel: declarations, and a line per line. */
Module Source::kernel(const std::string &name) const
{
    const size_t begin = begins_.at(name);
    const size_t next = text_.find(".entry ", text_.find(".entry ", begin) + 1);
    const size_t end = next == std::string::npos ? text_.size() : text_.rfind('\n', next) + 1;
    const auto lines = std::count(text_.begin() + static_cast<std::ptrdiff_t>(outside_.size()),
                                  text_.begin() + static_cast<std::ptrdiff_t>(begin), '\n');
    return parse(outside_ + std::string(static_cast<size_t>(lines), '\n') +
                 text_.substr(begin, end - begin));
}

Module parse(const std::string &text)
{
    const std::vector<Statement> statements = statements_of(text);
    Module module;
    Outside outside;
    for (size_t i = 0; i < statements.size();) {
        if (statements[i].text.find(".entry") == std::string::npos) {
            declare_outside(statements[i++], &outside);
            continue;
        }
        KernelParser parser(statements[i++], outside);
        int depth = 0;
        do {
            if (i == statements.size())
                throw Error(statements.back().line, "a kernel without an end");
            const std::string &now = statements[i].text;
            depth += (now == "{") - (now == "}");
            if (now != "{" && now != "}")
                parser.add(statements[i]);
            i++;
        } while (depth > 0);
        const Kernel kernel = parser.finish();
        module[kernel.name] = kernel;
    }
    return module;
}

} // namespace ptx
