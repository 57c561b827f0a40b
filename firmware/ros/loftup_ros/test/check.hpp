// Checks that end the program with a message.

#pragma once

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                   \
            std::exit(1);                                                                          \
        }                                                                                          \
    } while (0)

/// The expression throws an exception whose message contains the text.
#define CHECK_THROWS(expression, text)                                                             \
    do {                                                                                           \
        std::string check_message = "nothing was thrown";                                          \
        try {                                                                                      \
            static_cast<void>(expression);                                                         \
        } catch (const std::exception &e) {                                                        \
            check_message = e.what();                                                              \
        }                                                                                          \
        if (check_message.find(text) == std::string::npos) {                                       \
            std::fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #expression,               \
                         check_message.c_str());                                                   \
            std::exit(1);                                                                          \
        }                                                                                          \
    } while (0)
