// A place for one waiting element, without ROS.

#ifndef LOFTUP_ROS__LATEST_HPP_
#define LOFTUP_ROS__LATEST_HPP_

#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>

namespace loftup_ros {

/// Passes elements from one thread to another. A newer element replaces the one that waits.
template <typename T> class Latest {
  public:
    /// Returns whether an element was replaced.
    bool put(T value) {
        std::lock_guard<std::mutex> lock(mutex_);
        bool replaced = value_.has_value();
        value_ = std::move(value);
        changed_.notify_one();
        return replaced;
    }
    /// Waits for an element. Nothing after `close`.
    std::optional<T> take() {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return closed_ || value_; });
        if (closed_)
            return std::nullopt;
        return std::exchange(value_, std::nullopt);
    }
    void close() {
        std::lock_guard<std::mutex> lock(mutex_);
        closed_ = true;
        changed_.notify_all();
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::optional<T> value_;
    bool closed_ = false;
};

} // namespace loftup_ros

#endif
